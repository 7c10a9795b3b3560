"""What a fine-tuned workdir knows of itself, and where its runs keep what they learned.

finetune.json           written when the command starts: config, tasks, encoder, data, runs
tokenizer/
runs/NAME/              one run: result.json and params.safetensors when it is done, metrics.jsonl and
                        checkpoints/ while it goes, predictions/ of dev and test
results.json results.md all runs, when the last is done
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files, records, remote
from electra_jax.finetune.heads import HeadSpec
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.spec import UserError, from_config

MOST_TOKENS = 2**20  # of a row
RECORD, RESULTS, TABLE = "finetune.json", "results.json", "results.md"
RUNS, RESULT, PARAMS = "runs", "result.json", "params.safetensors"
FORMAT = "electra_jax fine-tuning 1"
_ANOTHER = "take another workdir"
_FIELDS = {
    "config": dict[str, Any],
    "init": dict[str, Any],
    "tasks": list[str],
    "labels": dict[str, list[str]],
    "score_range": dict[str, list[float] | None],
    "max_len": dict[str, records.Whole(1, MOST_TOKENS)],  # type: ignore[misc]
    "heads": dict[str, dict[str, Any]],
    "examples": dict[str, records.Whole()],  # type: ignore[misc]
    "fingerprint": dict[str, str],
    "model": dict[str, Any],
    "vocab_size": records.Whole(1),
    "runs": list[dict[str, Any]],
    "together": bool,
    "steps": records.Whole(),
}
_CONFIG_FIELDS = {"init": str, "tasks": list[str], "data": dict[str, Any]}
_BY_TASK = ("labels", "score_range", "max_len", "heads", "examples", "fingerprint")
_RUN_FIELDS = {"name": records.Name(), "seed": int, "peak_lr": float}
_RESULT_FIELDS = {
    "name": records.Name(),
    "score": float,
    "peak_lr": float,
    "scores": dict[str, dict[str, dict[str, Any]]],
}


@dataclass(frozen=True)
class Run:
    """One run of a command: a seed and a learning rate."""

    name: str
    seed: int
    peak_lr: float


def plan_runs(seed: int, seeds: int, rates: tuple[float, ...]) -> list[Run]:
    """Every seed with every learning rate; the rate is in the name where there are several."""
    return [
        Run(f"lr{rate:g}-seed{s}" if len(rates) > 1 else f"seed{s}", s, rate)
        for rate in rates
        for s in range(seed, seed + seeds)
    ]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of finetune.json. What depends on a task is by its name."""

    config: Mapping[str, Any]  # as the command was given it
    init: Mapping[str, Any]  # what the encoder was: its kind, and its name
    tasks: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]  # the classes in the order of the head's outputs
    score_range: Mapping[str, tuple[float, ...] | None]  # of regression
    max_len: Mapping[str, int]
    heads: Mapping[str, Mapping[str, Any]]
    examples: Mapping[str, int]  # rows that were trained on
    fingerprint: Mapping[str, str]  # of the data
    model: Mapping[str, Any]
    vocab_size: int
    runs: tuple[Run, ...]
    together: bool
    steps: int
    majority: Mapping[str, Any]  # empty in workdirs of earlier versions

    @property
    def dims(self) -> Dimensions:
        """The encoder's dimensions."""
        return Dimensions(from_config(ModelSpec, self.model, "model"), self.vocab_size)

    def head(self, task: str) -> HeadSpec:
        """The head of a task."""
        return from_config(HeadSpec, self.heads[task], "head")

    def task(self, name: str | None) -> str:
        """The task of this name; it must be given where there are several. UserError for none."""
        if name is None and len(self.tasks) == 1:
            return self.tasks[0]
        if name is None:
            raise UserError(f"the workdir has several tasks; give --task {'|'.join(self.tasks)}")
        if name not in self.tasks:
            raise UserError(f"the workdir has no task {name!r}; it has {', '.join(self.tasks)}")
        return name


def of(found: Mapping[str, Any]) -> Record:
    """The record that checked JSON holds; what else is in the file is for people."""
    made = {name: found[name] for name in _FIELDS}
    labels = {task: tuple(each) for task, each in found["labels"].items()}
    ranges = {task: each and tuple(each) for task, each in found["score_range"].items()}
    made |= {"tasks": tuple(found["tasks"]), "labels": labels, "score_range": ranges}
    runs = tuple(Run(**run) for run in found["runs"])
    return Record(**{**made, "runs": runs, "majority": found.get("majority") or {}})


def read(folder: str | Path) -> Record:
    """The record of a workdir; UserError when it is missing, damaged or of another format."""
    path = Path(folder) / RECORD
    if not path.exists():
        raise UserError(
            f"{folder} is no fine-tuned workdir: it has no {RECORD}; make one with "
            "electra-jax finetune"
        )
    found = records.read(path, _ANOTHER)
    if found.get("format") != FORMAT:
        raise UserError(f"{path} was not written by this version (expected format {FORMAT!r})")
    records.check(found, _FIELDS, path, _ANOTHER)
    records.check(found["init"], {"kind": str, "name": str | None}, f"{path}, init", _ANOTHER)
    records.check(found["config"], _CONFIG_FIELDS, f"{path}, config", _ANOTHER)
    for run in found["runs"]:
        records.check(run, _RUN_FIELDS, f"{path}, runs", _ANOTHER)
    _same_tasks(found, path)
    return of(found)


def _same_tasks(found: Mapping[str, Any], path: Path) -> None:
    """UserError where a part of the record lacks one of its tasks."""
    for part in _BY_TASK:
        lost = [task for task in found["tasks"] if task not in found[part]]
        if lost:
            raise UserError(f"{path} is damaged: {part} has nothing of {lost[0]!r}; {_ANOTHER}")


def is_workdir(folder: str | Path) -> bool:
    """Whether the folder, on this machine or on a bucket, holds fine-tuning."""
    if remote.is_remote(folder):
        remote.check_access(str(folder))
        return bool(remote.sizes(remote.join(str(folder), RECORD)))
    return (Path(folder) / RECORD).is_file()


def run_folder(folder: str | Path, name: str) -> Path:
    """The folder of one run."""
    return Path(folder) / RUNS / name


def done(folder: str | Path, name: str) -> dict[str, Any] | None:
    """The result of a run that is finished; None for one that is not."""
    path = run_folder(folder, name) / RESULT
    if not path.is_file():
        return None
    again = "remove it and go on with electra-jax finetune --workdir"
    return records.check(records.read(path, again), _RESULT_FIELDS, path, again)


def write_params(path: Path, params: Mapping[str, np.ndarray]) -> None:
    """Writes flat parameters whole or not at all."""
    from safetensors.numpy import save_file

    files.make_folder(path.parent)
    with files.new_file(path) as temporary:
        save_file({k: np.ascontiguousarray(params[k]) for k in sorted(params)}, temporary)


def read_params(folder: str | Path, name: str) -> dict[str, np.ndarray]:
    """The flat parameters a run ended with. UserError where they are missing or damaged."""
    from electra_jax.convert.folder import read_tensors

    path = run_folder(folder, name) / PARAMS
    if not path.is_file():
        raise UserError(
            f"{path} is missing: run {name} of {folder} is not finished; go on with "
            f"electra-jax finetune --workdir {folder}"
        )
    return read_tensors(path)


def best_params(folder: str | Path, found: Record) -> tuple[str, dict[str, np.ndarray]]:
    """(name, parameters) of the finished run with the best dev score; UserError where none is finished."""
    finished = [
        (run.name, result) for run in found.runs if (result := done(folder, run.name)) is not None
    ]
    if not finished:
        raise UserError(
            f"{folder} has no finished run; go on with electra-jax finetune --workdir {folder}"
        )
    name = max(finished, key=lambda item: item[1]["score"])[0]
    return name, read_params(folder, name)
