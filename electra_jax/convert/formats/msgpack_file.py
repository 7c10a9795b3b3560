"""Flax's own files (`flax_model.msgpack`), as transformers wrote them: our way round of kernels, other names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.convert.formats.tensors import Stored, Tensors, check_shape
from electra_jax.spec import UserError

NAME = "a Flax msgpack"
WEIGHTS = "flax_model.msgpack"
# Flax's name of a leaf -> PyTorch's; kernels are turned.
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def find(folder: Path) -> list[Path]:
    """The file of the weights; none where there is none."""
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []


def read(files: list[Path]) -> Tensors:
    """Every tensor of the file, by PyTorch's names. UserError for damage, and for what is no tree of arrays."""
    from flax import serialization

    (file,) = files
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except Exception as error:
        raise UserError(
            f"{file} is not a whole Flax file: {type(error).__name__}: {str(error)[:120]}"
        ) from error
    if not isinstance(tree, dict):
        raise UserError(f"{file} holds no tree of arrays, but {type(tree).__name__}")
    stored: dict[str, Stored] = {}
    for path, value in _leaves(file, tree, ()):
        *module, leaf = path
        name = ".".join([*module, _LEAVES.get(leaf, leaf)])
        check_shape(str(file), name, tuple(value.shape))
        kept = Stored(shape=tuple(value.shape), dtype=value.dtype, read=lambda value=value: value)  # type: ignore[misc]
        stored[name] = kept.transposed() if leaf == "kernel" and value.ndim == 2 else kept
    return Tensors(stored)


def _leaves(
    file: Path, tree: Mapping[Any, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if len(above) > 32:
        raise UserError(f"{file} is nested deeper than any model")
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, dict):
            yield from _leaves(file, value, path)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iufbV":
            yield path, value
        else:
            where = "/".join(path)[:80]
            raise UserError(f"{file}: {where} is no array of numbers but {type(value).__name__}")
