"""What a workdir has to export: parameters, dimensions and the facts of its run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import remote
from electra_jax.convert.card import Facts
from electra_jax.data import fingerprint
from electra_jax.data.source import open_prepared
from electra_jax.model.electra import Dimensions
from electra_jax.spec import UserError
from electra_jax.train import arrays, baselines, checkpoint, imported, workdir
from electra_jax.train.options import RunSpec, run_spec

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
    source = found.record["source"]
    names = ", ".join(f"`{part['name']}`" for part in source["folders"])
    facts = Facts(
        origin=f"Imported from {names} and not trained since.",
        versions=workdir.versions(),
        commands=[f"electra-jax export --workdir {folder.name}"],
    )
    return Exportable(found.dims, found.objective, found.params, True, facts, folder / "tokenizer")


def _of_run(folder: Path, step: int | None) -> Exportable:
    record = workdir.read_record(folder)
    run = run_spec(record["config"])
    at, tree, meta = checkpoint.read_params(folder, step)
    origin = imported.read_record(folder)
    flat_config = _flat(record["config"])
    facts = Facts(
        step=at,
        data=_data_facts(run.data.path, meta["data"]),
        metrics=_beside_counting(held_out_metrics(folder, at), run, meta["data"]),
        settings={key: flat_config[key] for key in SETTINGS if key in flat_config},
        commands=[
            f"electra-jax pretrain --workdir {folder.name}",
            f"electra-jax export --workdir {folder.name} --step {at}",
        ],
        versions=record["versions"],
        origin=""
        if origin is None
        else "Training started from imported weights: "
        + ", ".join(f"`{part['name']}`" for part in origin[1]["source"]["folders"])
        + ".",
    )
    return Exportable(
        dims=run.dimensions(record["data"]["vocab_size"]),
        objective=run.objective["name"],
        params=arrays.flatten(tree),
        generator_trained=not run.objective.get("uniform_generator", False),
        facts=facts,
        tokenizer=folder / "tokenizer",
    )


def _data_facts(path: str, data: dict[str, Any]) -> dict[str, Any]:
    """Counts and fingerprint of the data; more of them while the prepared folder is still there."""
    facts = {
        "fingerprint": f"`{data['fingerprint']}`",
        "tokenizer hash": f"`{data['tokenizer_hash']}`",
        "row length": data["seq_len"],
        **{f"{split} rows": f"{rows:,}" for split, rows in data["rows"].items()},
    }
    try:
        info, digest = fingerprint.read(Path(path))
    except UserError:
        return facts  # moved or cleaned up since; the record of the run is enough
    if digest != data["fingerprint"]:
        return facts
    for split, counts in info["counts"].items():
        for name, count in counts.items():
            if isinstance(count, int) and name != "rows":
                facts[f"{split} {name.replace('_', ' ')}"] = f"{count:,}"
    return facts


def _beside_counting(
    metrics: dict[str, float], run: RunSpec, data: dict[str, Any]
) -> dict[str, float]:
    """The metrics and what counting tokens achieves, where an older run did not write that; its data may be gone."""
    if not metrics or "mlm_loss_unigram" in metrics or remote.is_remote(run.data.path):
        return metrics
    try:
        there = open_prepared(run.data.path)
    except UserError:
        return metrics
    if there.fingerprint != data["fingerprint"]:
        return metrics
    rows = run.train.batch * run.train.eval_batches
    return metrics | baselines.baselines_of(there, run.objective, rows)


def held_out_metrics(folder: Path, step: int) -> dict[str, float]:
    """The held-out metrics of a step, from `evaluate-<step>.json` or else from metrics.jsonl."""
    path = folder / f"evaluate-{step}.json"
    values: dict[str, Any] = {}
    if path.is_file():
        values = json.loads(path.read_text("utf-8"))
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
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in skip
    }


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
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
