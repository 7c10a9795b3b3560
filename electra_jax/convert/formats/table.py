"""The formats in the order in which a folder is looked at: the one that is found first is taken."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from electra_jax.convert.formats import hdf5, msgpack_file, safetensors_file, tf1, torch_pickle
from electra_jax.convert.formats.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format: its files in a folder (none: it is not there), and their tensors by PyTorch's names (tf1: its own)."""

    name: str
    find: Callable[[Path], list[Path]]
    read: Callable[[list[Path]], Tensors]


SAFETENSORS, MSGPACK, PICKLE, HDF5, TF1 = (
    Format(name=module.NAME, find=module.find, read=module.read)
    for module in (safetensors_file, msgpack_file, torch_pickle, hdf5, tf1)
)
FORMATS = (SAFETENSORS, MSGPACK, PICKLE, HDF5, TF1)


def find(folder: Path, say: bool = True) -> tuple[Format, list[Path]] | None:
    """(format, files) of a folder's weights, None where it has none; `say` what is taken where it is a question."""
    there = [(form, files) for form in FORMATS if (files := form.find(folder))]
    if not there:
        return None
    form, files = there[0]
    others = [file.name for _, more in there[1:] for file in more]
    if say and (form is not SAFETENSORS or others):
        said = f"reading {form.name}, {files[0].name}, in {folder}"
        if others:
            said += f"; not {', '.join(others[:4])}, which may hold another model"
        print(said, file=sys.stderr)
    return form, files
