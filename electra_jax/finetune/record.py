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


def read(folder: str | Path) -> dict[str, Any]:
    """The content of finetune.json; UserError when it is missing, damaged or of another format."""
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
    return found


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


def runs(found: Mapping[str, Any]) -> list[Run]:
    """The runs that a record names."""
    return [Run(**run) for run in found["runs"]]


def dimensions(found: Mapping[str, Any]) -> Dimensions:
    """The encoder's dimensions."""
    return Dimensions(from_config(ModelSpec, found["model"], "model"), found["vocab_size"])


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


def best_params(folder: str | Path, found: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """(name, parameters) of the finished run with the best dev score; UserError where none is finished."""
    finished = [
        (run.name, result) for run in runs(found) if (result := done(folder, run.name)) is not None
    ]
    if not finished:
        raise UserError(
            f"{folder} has no finished run; go on with electra-jax finetune --workdir {folder}"
        )
    name = max(finished, key=lambda item: item[1]["score"])[0]
    return name, read_params(folder, name)
