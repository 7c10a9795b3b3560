"""PyTorch's own files of tensors (`pytorch_model.bin`), in the zip format and in the older one, without PyTorch.

A pickle is a program. This one is read twice: first its instructions are looked at, and anything that a table of
tensors does not need is refused by name; then it is run by Python's unpickler, in which the few names that are allowed
stand for functions of this file. Nothing is imported, and no other function is called.
"""

import collections
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from electra_jax.convert.formats.safetensors_file import WEIGHTS as SAFETENSORS
from electra_jax.convert.formats.safetensors_file import indexed
from electra_jax.convert.formats.tensors import MOST_TENSORS, Stored, Tensors, check_shape
from electra_jax.spec import UserError

NAME = "a PyTorch pickle"
WEIGHTS, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
MOST_BYTES = 2**26  # of the pickle itself, without the numbers
_OPCODES = {
    *(
        "PROTO",
        "STOP",
        "MARK",
        "FRAME",
        "MEMOIZE",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
    ),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file; where it is, the older format says after the pickle."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


def find(folder: Path) -> list[Path]:
    """The files of the weights; none where there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    return indexed(folder, INDEX)


def read(files: list[Path]) -> Tensors:
    """Every tensor of the files. UserError for damage, and for whatever is no table of tensors."""
    stored: dict[str, Stored] = {}
    for file in files:
        try:
            with open(file, "rb") as opened:
                start = opened.read(9)
            if start[8:] == b"{":  # a length of 8 bytes, then JSON
                raise UserError(
                    f"{file} holds safetensors by another name; rename it to {SAFETENSORS}"
                )
            stored |= _read_zip(file) if start[:4] == b"PK\x03\x04" else _read_older(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{file} is not a whole file of PyTorch tensors: {error}") from error
    return Tensors(stored)


def _read_zip(file: Path) -> dict[str, Stored]:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1 or entries[pickles[0]].file_size > MOST_BYTES:
            raise UserError(f"{file} is a zip file without PyTorch's data.pkl; get the file again")
        root = pickles[0].removesuffix("data.pkl")
        order = entries.get(root + "byteorder")
        if order is not None and archive.read(order) != b"little":
            raise UserError(f"{file} was written on a big-endian machine, which is not read")
        table = _table(file, _load(file, io.BytesIO(archive.read(pickles[0]))))

        def place(storage: _Storage) -> tuple[int, int]:
            info = entries.get(f"{root}data/{storage.key}")
            if info is None or info.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{file} lacks the numbers data/{storage.key[:40]}; it is damaged")
            with archive.open(info) as content:  # to its end, where its checksum is compared
                while content.read(2**20):
                    pass
            return _data_begin(file, info), info.file_size

        return _stored(file, table, place)


def _data_begin(file: Path, info: zipfile.ZipInfo) -> int:
    """Where an uncompressed entry's bytes begin: behind its local header."""
    with open(file, "rb") as opened:
        opened.seek(info.header_offset)
        header = opened.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise UserError(f"{file} is damaged: no entry begins at byte {info.header_offset}")
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + name + extra


def _read_older(file: Path) -> dict[str, Stored]:
    with open(file, "rb") as opened:
        begun = [_load(file, opened) for _ in range(3)]
        if begun[:2] != [_MAGIC, _PROTOCOL] or not isinstance(begun[2], dict):
            raise UserError(f"{file} does not begin as a file of PyTorch tensors does")
        if begun[2].get("little_endian") is not True:
            raise UserError(f"{file} was written on a big-endian machine, which is not read")
        table = _table(file, _load(file, opened))
        keys = _load(file, opened)
        sizes = {tensor.storage.key: tensor.storage for tensor in table.values()}
        if not isinstance(keys, list) or not set(sizes) <= set(keys):
            raise UserError(f"{file} is damaged: its list of storages lacks some")
        places: dict[str, tuple[int, int]] = {}
        end = file.stat().st_size
        for key in keys:
            count = int.from_bytes(opened.read(8), "little")
            if key not in sizes:
                raise UserError(f"{file} holds a storage that no tensor is in; its size is unknown")
            size = count * sizes[key].dtype.itemsize
            places[key] = opened.tell(), size
            if opened.tell() + size > end:
                raise UserError(f"{file} ends in the middle of its numbers; get it again")
            opened.seek(size, io.SEEK_CUR)
    return _stored(file, table, lambda storage: places[storage.key])


def _stored(
    file: Path, table: dict[str, _Tensor], place: Callable[[_Storage], tuple[int, int]]
) -> dict[str, Stored]:
    """The tensors of a table, each checked to lie in its storage and the storage in the file."""
    found: dict[str, Stored] = {}
    end = file.stat().st_size
    for name, tensor in table.items():
        storage = tensor.storage
        begin, size = place(storage)
        count = check_shape(str(file), name, tensor.shape)
        last = tensor.offset + sum(
            (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
        )
        inside = count == 0 or last < storage.count
        whole = size == storage.count * storage.dtype.itemsize and begin + size <= end
        if not inside or not whole:
            raise UserError(
                f"{file}: tensor {name} reaches beyond the numbers that are there; it is damaged"
            )
        found[name] = Stored(
            shape=tensor.shape,
            dtype=storage.dtype,
            read=lambda tensor=tensor, begin=begin: _numbers(file, tensor, begin),  # type: ignore[misc]
        )
    return found


def _numbers(file: Path, tensor: _Tensor, begin: int) -> np.ndarray:
    """The elements of a tensor: those of its storage from its first to its last, seen by its strides."""
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    values = np.fromfile(file, dtype, count=span, offset=begin + tensor.offset * dtype.itemsize)
    if len(values) < span:
        raise UserError(f"{file} has become shorter while it was read")
    strides = [step * dtype.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)


def _table(file: Path, content: Any) -> dict[str, _Tensor]:
    """Name -> tensor of an unpickled state dict, one that is wrapped as "state_dict" or "model", too."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file} holds no table of tensors, but {type(content).__name__}")
    strange = [
        k for k, v in content.items() if not isinstance(k, str) or not isinstance(v, _Tensor)
    ]
    if strange:
        value = content[strange[0]]
        raise UserError(
            f"{file}: {str(strange[0])[:80]!r} is no tensor but {type(value).__name__}; expected a table of tensors"
        )
    if len(content) > MOST_TENSORS:
        raise UserError(f"{file} claims {len(content):,} tensors")
    return content


def _load(file: Path, opened: BinaryIO) -> Any:
    """The next pickle of a stream, once every instruction of it is known to be harmless."""
    begin = opened.tell()
    count, puts = 0, 0
    try:
        for opcode, argument, _ in pickletools.genops(opened):
            count += 1
            if opcode.name not in _OPCODES:
                raise UserError(
                    f"{file} holds the pickle instruction {opcode.name}, which no table of tensors needs; it is refused"
                )
            asked = str(argument).replace(" ", ".")
            if opcode.name == "GLOBAL" and asked not in _ALLOWED:
                raise UserError(
                    f"{file} asks for {asked[:120]}, which no table of tensors needs: opening it elsewhere would run "
                    "that. It is refused; get the model as safetensors from someone you trust"
                )
            if "PUT" in opcode.name:
                puts = max(puts, int(argument or 0))
            if puts > count or opened.tell() - begin > MOST_BYTES:
                raise UserError(f"{file} is damaged, or made to exhaust memory; it is refused")
        end = opened.tell()
        opened.seek(begin)
        content = io.BytesIO(opened.read(end - begin))
        return _Unpickler(content).load()
    except UserError:
        raise
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        EOFError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{file} is not a whole file of PyTorch tensors: {type(error).__name__}: {str(error)[:120]}"
        ) from error


class _Unpickler(pickle.Unpickler):
    """Makes dicts, tuples, numbers and the values of `_ALLOWED`, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What an allowed name stands for here."""
        return _ALLOWED[f"{module}.{name}"]

    def persistent_load(self, given: Any) -> _Storage:
        """("storage", its type, its key, a device, its number of elements, maybe a view)."""
        kind, dtype, key, _, count, *view = given
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(count) is not int:
            raise pickle.UnpicklingError(f"no storage: {str(given)[:80]}")
        if any(part is not None for part in view):
            raise pickle.UnpicklingError("a storage that is a view of another, which is not read")
        return _Storage(str(key), dtype, count)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    shape, strides = tuple(size), tuple(stride)
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor without a storage")
    if any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor with a negative size, offset or stride")
    return _Tensor(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _dtypes() -> dict[str, Any]:
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)

    return {f"torch.{name}": np.dtype(dtype) for name, dtype in _STORAGES.items()}


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **_dtypes(),
}
