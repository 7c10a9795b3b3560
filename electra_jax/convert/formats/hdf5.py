"""Keras' HDF5 files (`tf_model.h5`), as transformers' TensorFlow classes wrote them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.convert.formats.tensors import Stored, Tensors, check_shape
from electra_jax.spec import UserError

NAME = "a Keras HDF5 file"
WEIGHTS = "tf_model.h5"
# TensorFlow's name of a variable -> PyTorch's; kernels are turned.
_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "weight": "weight",
    "embeddings": "weight",
    "weights": "weight",
}


def find(folder: Path) -> list[Path]:
    """The file of the weights; none where there is none."""
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []


def read(files: list[Path]) -> Tensors:
    """Every tensor of the file, by PyTorch's names. UserError for damage, and for links to other files."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("a tf_model.h5 is read with h5py: pip install 'electra_jax[h5]'") from None
    (file,) = files
    stored: dict[str, Stored] = {}
    try:
        with h5py.File(file, "r") as opened:
            for path, dataset in _datasets(h5py, file, opened, ""):
                name, turned = _name(path, dataset.ndim)
                check_shape(str(file), name, tuple(dataset.shape))
                if name in stored:  # a layer that is shared lies below each that shares it
                    _check_same(file, name, stored[name].read(), dataset[()])
                    continue
                kept = Stored(
                    shape=tuple(dataset.shape),
                    dtype=dataset.dtype,
                    read=lambda path=path: _read(h5py, file, path),  # type: ignore[misc]
                )
                stored[name] = kept.transposed() if turned else kept
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{file} is not a whole HDF5 file: {str(error)[:160]}") from error
    return Tensors(stored)


def _check_same(file: Path, name: str, one: np.ndarray, other: np.ndarray) -> None:
    if not np.array_equal(one, other):
        raise UserError(f"{file} holds {name} twice, with different numbers")


def _read(h5py: Any, file: Path, path: str) -> np.ndarray:
    try:
        with h5py.File(file, "r") as opened:
            return opened[path][()]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(f"{file} is not a whole HDF5 file: {str(error)[:160]}") from error


def _datasets(
    h5py: Any, file: Path, group: Any, above: str, depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Every data set with its path; links are not followed, and numbers must lie in this file."""
    if depth > 32:
        raise UserError(f"{file} is nested deeper than any model")
    for key in group:
        path = f"{above}/{key}"
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise UserError(
                f"{file}: {path[:80]} is a link ({type(link).__name__}), which may lead to another file; it is refused"
            )
        value = group[key]
        if isinstance(value, h5py.Group):
            yield from _datasets(h5py, file, value, path, depth + 1)
            continue
        if value.external or value.is_virtual:
            raise UserError(
                f"{file}: the numbers of {path[:80]} lie in another file; it is refused"
            )
        if value.dtype.kind not in "iufb":
            raise UserError(f"{file}: {path[:80]} holds {value.dtype}, no numbers")
        yield path, value


def _name(path: str, axes: int) -> tuple[str, bool]:
    """(PyTorch's name, whether the array is turned) of the variable that lies at this path.

    Keras keeps a variable below its layer under its whole name again: /electra/tf_electra.../electra/embeddings/...:0
    """
    parts = [part.removesuffix(":0") for part in path.strip("/").split("/")]
    # The whole name begins with the class of the model, which is the last part of that form.
    begins = [i for i, part in enumerate(parts) if part.startswith("tf_electra")]
    parts = parts[begins[-1] + 1 :] if begins else parts[1:]
    *module, leaf = parts
    module = [part.replace("layer_._", "layer.") for part in module]
    name = ".".join([*module, _LEAVES.get(leaf, leaf)])
    return name, leaf == "kernel" and axes == 2
