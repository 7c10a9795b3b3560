"""A workdir that starts from imported weights: what is left there for training and export to find.

- import.json: model section, vocabulary size, objective, and where they came from
- imported/params.safetensors: our parameters by path ("discriminator/layer_0/query/kernel")
- imported/moments.safetensors: Adam's moments by path ("mu/discriminator/..."), where the model's own run goes on
- tokenizer/: the tokenizer that belongs to them
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files, records
from electra_jax.learn import arrays
from electra_jax.model import family
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.model.options import MODERN
from electra_jax.spec import UserError, from_config, to_dict

RECORD, PARAMS = "import.json", "imported/params.safetensors"
MOMENTS = "imported/moments.safetensors"
SCHEMA = 1
_AGAIN = "import into a new workdir"
_NAMED = 3  # differences in a message
_FIELDS = {
    "schema": int,
    "objective": str,
    "model": dict[str, Any],
    "vocab_size": records.Whole(1),
    "source": dict[str, Any],
    "params_sha256": str,
    "moments_sha256": str | None,
    "step": int | None,
}


@dataclass(frozen=True)
class Imported:
    """An imported model: `params` maps paths to float32 arrays, `record` is import.json."""

    dims: Dimensions
    objective: str  # its name
    params: dict[str, np.ndarray]
    record: dict[str, Any]
    moments: dict[str, dict[str, np.ndarray]] | None = None  # "mu", "nu" -> by path
    step: int = 0  # that its own run had done


def write(
    folder: str | Path,
    dims: Dimensions,
    objective: str,
    params: Mapping[str, np.ndarray],
    source: Mapping[str, Any],
    moments: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    step: int = 0,
) -> None:
    """Writes the parameters and then import.json, which says `source` was their source.

    `moments` and `step` are those of the run that the model comes from, which training then goes on with.
    """
    folder = Path(folder)
    _save(folder / PARAMS, params)
    going_on = {}
    if moments is not None:
        flat = {f"{name}/{path}": x for name, tree in moments.items() for path, x in tree.items()}
        _save(folder / MOMENTS, flat)
        going_on = {"moments_sha256": files.sha256(folder / MOMENTS), "step": step}
    record = {
        "schema": SCHEMA,
        "objective": objective,
        "model": to_dict(dims.spec),
        "vocab_size": dims.vocab_size,
        "source": dict(source),
        "params_sha256": files.sha256(folder / PARAMS),
        **going_on,
    }
    files.write_json(folder / RECORD, record)


def _save(path: Path, arrays_: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    files.make_folder(path.parent)
    with files.new_file(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(arrays_[name]) for name in sorted(arrays_)}, temporary
        )


def read_record(workdir: str | Path) -> tuple[Dimensions, dict[str, Any]] | None:
    """Dimensions and content of import.json, no parameters; None where there is no import."""
    path = Path(workdir) / RECORD
    if not path.is_file():
        return None
    record = records.read(path, _AGAIN)
    if record.get("schema", SCHEMA) != SCHEMA:
        raise UserError(
            f"{path} has schema {records.short(record.get('schema'))}, expected {SCHEMA}; import again"
        )
    records.check(record, _FIELDS, path, _AGAIN)
    return Dimensions(
        from_config(ModelSpec, record["model"], "model"), record["vocab_size"]
    ), record


def read(workdir: str | Path) -> Imported | None:
    """The import of a workdir, parameters checked by digest; None where there is none."""
    found = read_record(workdir)
    if found is None:
        return None
    dims, record = found
    params = _load(Path(workdir) / PARAMS, record["params_sha256"])
    if record.get("moments_sha256") is None:
        return Imported(dims, record["objective"], params, record)
    moments: dict[str, dict[str, np.ndarray]] = {}
    for name, value in _load(Path(workdir) / MOMENTS, record["moments_sha256"]).items():
        moment, _, path = name.partition("/")
        moments.setdefault(moment, {})[path] = value
    return Imported(dims, record["objective"], params, record, moments, record.get("step") or 0)


def _load(path: Path, sha256: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing; import into a new workdir")
    if files.sha256(path) != sha256:
        raise UserError(f"{path} has changed since it was imported; import into a new workdir")
    return load_file(path)


def as_tree(found: Imported, expected: Any) -> dict[str, Any]:
    """The imported parameters as nested dicts, float32.

    `expected` is a tree of arrays or ShapeDtypeStructs; UserError names the first paths, shapes and
    dtypes in which the import differs from it, and how many more there are.
    """
    return _nested(found.params, expected, "parameters", PARAMS)


def moments_as_trees(found: Imported, expected: Any) -> dict[str, dict[str, Any]]:
    """The imported moments by name, each checked against the tree of parameters that `expected` is."""
    return {
        name: _nested(flat, expected, f"moments {name}", MOMENTS)
        for name, flat in (found.moments or {}).items()
    }


def _nested(flat: Mapping[str, np.ndarray], expected: Any, what: str, file: str) -> dict[str, Any]:
    wrong = arrays.mismatches(
        arrays.describe(expected), arrays.describe(flat), f"the import ({file})"
    )
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise UserError(
            f"the imported {what} do not fit the model of this run: {'; '.join(wrong[:_NAMED])}{more}; {_AGAIN}"
        )
    return arrays.nest(dict(flat))


def conflicts(
    model: Dimensions,
    asked: Dimensions,
    more: Callable[[Dimensions], Mapping[str, Any]] = lambda dims: {},
) -> list[str]:
    """'name is a, imported b' for every dimension in which `asked` differs from the imported model.

    `more`: the numbers of dimensions that an objective has besides those of the full-size encoder.
    """
    ours, theirs = _numbers(asked, more), _numbers(model, more)
    # Of another family, some are on one side alone.
    names = [k for k in theirs if k in ours and ours[k] != theirs[k]]
    return [f"{k} is {ours[k]!r}, imported {theirs[k]!r}" for k in names]


def _numbers(dims: Dimensions, more: Callable[[Dimensions], Mapping[str, Any]]) -> dict[str, Any]:
    fields = ("layers", "width", "heads", "ffn", "embedding", "positions", "types")
    numbers = {f"model.{field}": getattr(dims.spec, field) for field in ("family", *fields)}
    if dims.spec.family == MODERN:
        numbers |= {
            f"model.{name}": family.value(dims.spec, name) for name in family.MODERN_DEFAULTS
        }
    return numbers | {
        **more(dims),
        "model.vocab_rows": dims.spec.vocab_rows,
        "vocabulary size (of the data)": dims.vocab_size,
    }
