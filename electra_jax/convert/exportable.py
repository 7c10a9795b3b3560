"""What a workdir has to export: parameters, dimensions and the facts of its run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import records, remote
from electra_jax.convert import example, made_by
from electra_jax.convert.card import About, Facts
from electra_jax.convert.example import Example
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import arrays, checkpoint
from electra_jax.model.electra import Dimensions
from electra_jax.pretrain import baselines
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import RunSpec, run_spec
from electra_jax.spec import UserError
from electra_jax.text import tokenizer as tokenizers
from electra_jax.workdir import imported
from electra_jax.workdir.record import read_record, versions

# Settings that a reader of the card asks for first.
SETTINGS = (
    "train.batch",
    "optim.name",
    "optim.peak_lr",
    "optim.warmup",
    "train.steps",
    "objective.mask_prob",
    "objective.generator_weight",
    "objective.discriminator_weight",
    "model.dtype",
    "train.seed",
)


@dataclass(frozen=True)
class Exportable:
    """A model of ours with everything its folder needs. `params` is flat: path -> float32 array."""

    dims: Dimensions
    objective: str
    params: dict[str, np.ndarray]
    generator_trained: bool  # False with the uniform generator of the ablation
    facts: Facts
    tokenizer: Path


def read(folder: str | Path, step: int | None = None) -> Exportable:
    """The model of a workdir at `step` (the newest when None); an import that was never trained too.

    Raises UserError for a folder that is no workdir or has no such checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"workdir {folder} does not exist")
    found = imported.read(folder) if not _trained(folder) else None
    if found is None:
        return _of_run(folder, step)
    if step:
        raise UserError(f"{folder} holds an import without training; there is no step {step}")
    return _of_import(folder, found)


def _trained(folder: Path) -> bool:
    return bool(checkpoint.Checkpoints(folder).steps())


def _of_import(folder: Path, found: imported.Imported) -> Exportable:
    facts = Facts(
        origin=f"Imported from {_sources(found.record)} and not trained since.",
        versions=versions(),
        commands=[f"electra-jax export --workdir {folder.name}"],
    )
    return Exportable(found.dims, found.objective, found.params, True, facts, folder / "tokenizer")


def _of_run(folder: Path, step: int | None) -> Exportable:
    record = read_record(folder)
    run = run_spec(record["config"])
    at, tree, meta = checkpoint.read_params(folder, step)
    starts.edited(folder, record, (at, meta))
    origin = imported.read_record(folder)
    there = _prepared(run.data.path, meta["data"])
    shown, language = (None, "") if there is None else _shown(there, folder / "tokenizer")
    flat_config = _flat(record["config"])
    facts = Facts(
        step=at,
        data=_data_facts(there, meta["data"]),
        metrics=_beside_counting(held_out_metrics(folder, at), run, there),
        settings={key: flat_config[key] for key in SETTINGS if key in flat_config},
        commands=[
            *([] if there is None else [made_by.prepare(there.info)]),
            made_by.pretrain(record["config"], folder.name),
            *made_by.changed(record.get("changes") or []),
            f"electra-jax export --workdir {folder.name} --step {at} --output hf",
        ],
        example=shown,
        about=About((language,) if language else ()),
        versions=record["versions"],
        origin=""
        if origin is None
        else f"Training started from imported weights: {_sources(origin[1])}.",
    )
    return Exportable(
        dims=run.dimensions(record["data"]["vocab_size"]),
        objective=run.objective["name"],
        params=arrays.flatten(tree),
        generator_trained=not run.objective.get("uniform_generator", False),
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
    metrics: dict[str, float], run: RunSpec, there: Prepared | None
) -> dict[str, float]:
    """The metrics and what counting tokens achieves, where an older run did not write that; its data may be gone."""
    if not metrics or "mlm_loss_unigram" in metrics or there is None:
        return metrics
    rows = run.train.batch * run.train.eval_batches
    return metrics | baselines.baselines_of(there, run.objective, rows)


def held_out_metrics(folder: Path, step: int) -> dict[str, float]:
    """The held-out metrics of a step, from `evaluate-<step>.json` or else from metrics.jsonl."""
    path = folder / f"evaluate-{step}.json"
    values: dict[str, Any] = {}
    if path.is_file():
        values = records.read(path, "remove it and evaluate again")
    elif (folder / "metrics.jsonl").is_file():
        for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
            if '"valid"' in line:
                entry = _entry(line)
                if entry.get("split") == "valid" and entry.get("step") == step:
                    values = entry
    skip = ("step", "rows")
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
