"""Safetensors: one file, or several that an index names."""

from pathlib import Path

import numpy as np

from electra_jax import records
from electra_jax.convert.formats.tensors import Stored, Tensors
from electra_jax.spec import UserError

NAME = "safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Of the tensors in a file, as numpy has them; the 8-bit floats lack the scales that they mean something with.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def find(folder: Path) -> list[Path]:
    """The files of the weights; none where there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    return indexed(folder, INDEX)


def indexed(folder: Path, index: str) -> list[Path]:
    """The files that an index names, all of which must be there; none where there is no index."""
    if not (folder / index).is_file():
        return []
    kinds = {"weight_map": dict[str, records.Name()]}  # type: ignore[misc]
    found = records.check(records.read(folder / index), kinds, folder / index)
    names = sorted(set(found["weight_map"].values()))
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise UserError(f"{folder} lacks the weight files {', '.join(lost)} its {index} names")
    return [folder / name for name in names]


def read(files: list[Path]) -> Tensors:
    """Every tensor of the files. UserError for a file that is damaged, and for a dtype without a meaning here."""
    stored: dict[str, Stored] = {}
    for file in files:
        stored |= _read(file)
    return Tensors(stored)


def _read(file: Path) -> dict[str, Stored]:
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
    from safetensors import SafetensorError, safe_open

    def reader(name: str) -> np.ndarray:
        try:
            with safe_open(file, framework="numpy") as opened:
                return opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is not a whole safetensors file: {error}") from error

    found: dict[str, Stored] = {}
    try:
        with safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                part = opened.get_slice(name)
                if part.get_dtype() not in _DTYPES:
                    raise UserError(
                        f"{file}: tensor {name} is of dtype {part.get_dtype()}, which is not read; save the model in "
                        "float32 or bfloat16"
                    )
                found[name] = Stored(
                    shape=tuple(part.get_shape()),
                    dtype=np.dtype(_DTYPES[part.get_dtype()]),
                    read=lambda name=name: reader(name),  # type: ignore[misc]
                )
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a whole safetensors file: {error}") from error
    return found
