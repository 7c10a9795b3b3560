"""A workdir that starts from somebody's weights: what `import` leaves for training and export to find.

import.json              the model section, vocabulary size, objective and where all of it came from
imported/params.safetensors   our parameters under their paths ("discriminator/layer_0/query/kernel")
tokenizer/               the tokenizer that belongs to them
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.spec import UserError, from_config, to_dict

RECORD, PARAMS = "import.json", "imported/params.safetensors"
SCHEMA = 1


@dataclass(frozen=True)
class Imported:
    """An imported model: `params` maps paths to float32 arrays; `record` is import.json as it stands."""

    dims: Dimensions
    objective: str  # electra | mlm
    params: dict[str, np.ndarray]
    record: dict[str, Any]


def write(
    folder: str | Path,
    dims: Dimensions,
    objective: str,
    params: Mapping[str, np.ndarray],
    source: Mapping[str, Any],
) -> None:
    """Writes the parameters and then import.json, which says `source` was their source."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    path = folder / PARAMS
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.disk_errors(path):
        save_file({name: np.ascontiguousarray(params[name]) for name in sorted(params)}, path)
    record = {
        "schema": SCHEMA,
        "objective": objective,
        "model": to_dict(dims.spec),
        "vocab_size": dims.vocab_size,
        "source": dict(source),
        "params_sha256": files.sha256(path),
    }
    files.write_json(folder / RECORD, record)


def read_record(workdir: str | Path) -> tuple[Dimensions, dict[str, Any]] | None:
    """Dimensions and content of import.json without the parameters; None where there is no import."""
    path = Path(workdir) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["schema"] != SCHEMA:
            raise UserError(
                f"{path} has schema {record['schema']}, expected {SCHEMA}; import again"
            )
        model, vocab_size = record["model"], int(record["vocab_size"])
        record["objective"], record["params_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); import into a new workdir") from error
    return Dimensions(from_config(ModelSpec, model, "model"), vocab_size), record


def read(workdir: str | Path) -> Imported | None:
    """The import of a workdir, its parameters verified against their digest; None where there is none."""
    found = read_record(workdir)
    if found is None:
        return None
    from safetensors.numpy import load_file

    dims, record = found
    path = Path(workdir) / PARAMS
    if not path.is_file():
        raise UserError(f"{path} is missing; import into a new workdir")
    if files.sha256(path) != record["params_sha256"]:
        raise UserError(f"{path} has changed since it was imported; import into a new workdir")
    return Imported(dims, record["objective"], load_file(path), record)


def conflicts(imported: Dimensions, asked: Dimensions) -> list[str]:
    """'name is a, imported b' for every dimension in which `asked` differs from the imported model.

    Generator ratios are compared by the widths and depths they give, not as numbers.
    """
    ours, theirs = _numbers(asked), _numbers(imported)
    return [f"{k} is {ours[k]}, imported {theirs[k]}" for k in theirs if ours[k] != theirs[k]]


def _numbers(dims: Dimensions) -> dict[str, Any]:
    s, g = dims.spec, dims.generator
    fields = ("layers", "width", "heads", "ffn", "embedding", "positions", "types", "tying")
    return {f"model.{field}": getattr(s, field) for field in fields} | {
        "generator width (model.generator_size)": g.layer.width,
        "generator depth (model.generator_layers)": g.layers,
        "vocabulary size (of the data)": dims.vocab_size,
    }
