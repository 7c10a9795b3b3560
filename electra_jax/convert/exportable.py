"""What a workdir has to export: parameters, dimensions and the facts of its run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import records, remote
from electra_jax.convert import example, made_by
from electra_jax.convert.card import About, Facts
from electra_jax.convert.example import Example
from electra_jax.data.baselines import MODELS
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import checkpoint
from electra_jax.model.electra import Dimensions
from electra_jax.objective import registry
from electra_jax.objective.export import Export, whole
from electra_jax.objective.protocol import Objective
from electra_jax.pretrain import baselines
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.evaluate import result_name
from electra_jax.pretrain.options import RunSpec, run_spec
from electra_jax.spec import UserError
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import imported
from electra_jax.workdir.record import read_record, versions

# Settings that a reader of the card asks for first.
SETTINGS = ("train.batch", "optim.name", "optim.peak_lr", "optim.warmup", "train.steps")
LAST_SETTINGS = ("model.dtype", "train.seed")  # behind those of the objective


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """A model of ours with everything its folder needs. `params` is flat: path -> float32 array, as it leaves."""

    dims: Dimensions
    objective: str  # its name
    exports: Sequence[Export]  # the models in it; the first is the one to fine-tune
    params: dict[str, np.ndarray]
    facts: Facts
    tokenizer: Path
    note: str | None = None  # what its user should know


def read(folder: str | Path, step: int | None = None, average: bool = False) -> Exportable:
    """The model of a workdir at `step` (the newest when None); an import that was never trained too.

    `average`: the average of the weights in place of them.

    Raises UserError for a folder that is no workdir or has no such checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"workdir {folder} does not exist")
    found = imported.read(folder) if not _trained(folder) else None
    if found is None:
        return _of_run(folder, step, average)
    if step or average:
        missing = f"step {step}" if step else "average of its weights"
        raise UserError(f"{folder} holds an import without training; there is no {missing}")
    return _of_import(folder, found)


def _trained(folder: Path) -> bool:
    return bool(checkpoint.Checkpoints(folder).steps())


def _of_import(folder: Path, found: imported.Imported) -> Exportable:
    facts = Facts(
        origin=f"Imported from {_sources(found.record)} and not trained since.",
        versions=versions(),
        commands=[f"electra-jax export --workdir {folder.name}"],
    )
    exports = registry.exports(found.objective, found.dims)
    return Exportable(
        dims=found.dims,
        objective=found.objective,
        exports=exports,
        params=whole(found.params, exports),
        facts=facts,
        tokenizer=folder / "tokenizer",
    )


def _of_run(folder: Path, step: int | None, average: bool) -> Exportable:
    record = read_record(folder)
    run = run_spec(record["config"], folder)
    saved = checkpoint.read(folder, step)
    at, meta = saved.step, saved.meta
    params = saved.average(folder) if average else saved.params
    starts.edited(folder, record, (at, meta))
    origin = imported.read_record(folder)
    there = _prepared(run.data.path, meta["data"])
    shown, language = (None, "") if there is None else _shown(there, folder / "tokenizer")
    data, config = record["data"], _flat(record["config"])
    objective = registry.make(
        run.objective,
        run.model,
        data["vocab_size"],
        tokenizers.load(folder / "tokenizer").special,
        data["seq_len"],
    )
    settings = (*SETTINGS, *(f"objective.{key}" for key in objective.settings), *LAST_SETTINGS)
    metrics = _beside_counting(held_out_metrics(folder, at, average), run, objective, there)
    facts = Facts(
        step=at,
        data=_data_facts(there, meta["data"]),
        metrics=metrics,
        settings={key: config[key] for key in settings if key in config},
        commands=[
            *([] if there is None else [made_by.prepare(there.info)]),
            made_by.pretrain(record["config"], folder.name),
            *made_by.changed(record.get("changes") or []),
            f"electra-jax export --workdir {folder.name} --step {at}{' --average' * average} --output hf",
        ],
        example=shown,
        about=About((language,) if language else ()),
        versions=record["versions"],
        origin=""
        if origin is None
        else f"Training started from imported weights: {_sources(origin[1])}.",
    )
    return Exportable(
        dims=run.dimensions(data["vocab_size"]),
        objective=record["config"]["objective"]["name"],
        exports=objective.exports(),
        params=whole(params, objective.exports()),
        note=baselines.worse(metrics, objective.shown),
        facts=facts,
        tokenizer=folder / "tokenizer",
    )


def _sources(record: Mapping[str, Any]) -> str:
    """The names of the folders that an import was made of."""
    kinds = {"folders": list[dict[str, Any]]}
    found = records.check(record["source"], kinds, f"{imported.RECORD}, source")["folders"]
    for part in found:
        records.check(part, {"name": str}, f"{imported.RECORD}, source.folders")
    return ", ".join(f"`{part['name']}`" for part in found)


def _prepared(path: str, data: Mapping[str, Any]) -> Prepared | None:
    """The data of a run while the prepared folder is still there, on this machine; else its record is enough."""
    try:
        if remote.is_remote(path):
            return None
        found = open_prepared(path, whole=False)
    except UserError:
        return None  # moved or cleaned up since
    return found if found.fingerprint == data["fingerprint"] else None


def _shown(data: Prepared, tokenizer: Path) -> tuple[Example | None, str]:
    """An example and the language of the data; what they say of it themselves comes first."""
    try:
        found, language = example.of(data, tokenizers.load(tokenizer))
    except UserError:
        found, language = None, ""  # damaged since; weights can be exported all the same
    said = data.info["options"].get("language") or data.info["tokenizer"].get("language")
    return found, said if isinstance(said, str) and said else language


def _data_facts(there: Prepared | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and fingerprint of the data; more of them while the prepared folder is still there."""
    facts = {
        "fingerprint": f"`{data['fingerprint']}`",
        "tokenizer hash": f"`{data['tokenizer_hash']}`",
        "row length": data["seq_len"],
        **{f"{split} rows": f"{rows:,}" for split, rows in data["rows"].items()},
    }
    for split, counts in there.info["counts"].items() if there is not None else ():
        for name, count in counts.items():
            if isinstance(count, int) and name != "rows":
                facts[f"{split} {name.replace('_', ' ')}"] = f"{count:,}"
    return facts


def _beside_counting(
    metrics: dict[str, float], run: RunSpec, objective: Objective, there: Prepared | None
) -> dict[str, float]:
    """The metrics and what counting tokens achieves, where an older run did not write that; its data may be gone."""
    beside = tuple(f"_{model}" for model in MODELS)
    if not metrics or there is None or any(name.endswith(beside) for name in metrics):
        return metrics
    rows = run.train.batch * run.train.eval_batches
    return metrics | baselines.baselines_of(there, objective, rows)


def held_out_metrics(folder: Path, step: int, average: bool = False) -> dict[str, float]:
    """The held-out metrics of a step, from `evaluate-<step>.json` or else from metrics.jsonl.

    Of the `average` of the weights, from the former alone.
    """
    path = folder / result_name(step, average)
    values: dict[str, Any] = {}
    if path.is_file():
        values = records.read(path, "remove it and evaluate again")
    elif not average and (folder / "metrics.jsonl").is_file():
        for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
            if '"valid"' in line:
                entry = _entry(line)
                if entry.get("split") == "valid" and entry.get("step") == step:
                    values = entry
    skip = ("step", "rows", "average")
    return {
        name: float(value)
        for name, value in values.items()
        if type(value) in (int, float) and abs(value) <= 1e300 and name not in skip
    }


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}  # the torn last line of a run that was killed
    return entry if isinstance(entry, dict) else {}


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return flat
