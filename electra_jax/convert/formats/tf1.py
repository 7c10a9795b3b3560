"""TensorFlow's checkpoints (`model.ckpt-N.index`, `model.ckpt-N.data-...`), without TensorFlow.

The index is a table of LevelDB: sorted keys with shared beginnings, in blocks with a CRC-32C each. A value is a
`BundleEntryProto`: type, shape, file, place and CRC-32C of the numbers, which lie raw and little-endian in the data.
Sources: table format in leveldb/doc/table_format.md, messages in tensorflow/core/protobuf/tensor_bundle.proto.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from electra_jax.convert.formats.tensors import MOST_TENSORS, Stored, Tensors, check_shape
from electra_jax.spec import UserError

NAME = "a TensorFlow 1 checkpoint"
STATE = "checkpoint"  # the file that names the newest one
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MOST_INDEX = 2**26  # bytes of an index
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}


class _DamagedError(Exception):
    """What is wrong with the bytes."""


@dataclass(frozen=True)
class _Entry:
    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def find(folder: Path) -> list[Path]:
    """The index and data files of the newest checkpoint; none where there is none.

    The newest is what the file `checkpoint` names, else that of the highest step. UserError where a file is missing.
    """
    indices = sorted(folder.glob("*.index"), key=lambda path: _step(path.stem))
    if not indices:
        return []
    chosen = indices[-1]
    state = folder / STATE
    if state.is_file():
        told = re.search(rb'model_checkpoint_path:\s*"([^"]+)"', state.read_bytes()[:65536])
        if told:
            name = Path(told[1].decode(errors="replace")).name
            chosen = folder / f"{name}.index"
            if not chosen.is_file():
                raise UserError(f"{state} names {name}, but {chosen.name} is not there")
    data = sorted(folder.glob(f"{chosen.stem}.data-*-of-*"))
    if not data:
        raise UserError(f"{chosen} is the index of numbers, but {chosen.stem}.data-... is missing")
    return [chosen, *data]


def _step(stem: str) -> int:
    digits = re.search(r"-(\d+)$", stem)
    return int(digits[1]) if digits else -1


def read(files: list[Path]) -> Tensors:
    """Every variable by TensorFlow's name, Adam's slots among them. UserError for damage of any byte."""
    index, *data = files
    crc = _crc32c()
    try:
        if index.stat().st_size > _MOST_INDEX:
            raise _DamagedError("is larger than any index")
        entries = dict(_entries(index.read_bytes(), crc, len(data)))
    except (_DamagedError, OSError) as error:
        raise UserError(
            f"{index} {error}; it is no whole index of a TensorFlow checkpoint"
        ) from None
    stored = {}
    for name, entry in entries.items():
        count = check_shape(str(index), name, entry.shape)
        file = data[entry.shard]
        if (
            entry.size != count * entry.dtype.itemsize
            or entry.offset + entry.size > file.stat().st_size
        ):
            raise UserError(
                f"{file} is shorter than {index.name} says ({name}); get both files again"
            )
        stored[name] = Stored(
            shape=entry.shape,
            dtype=entry.dtype,
            read=lambda name=name, entry=entry, file=file: _numbers(file, name, entry, crc),  # type: ignore[misc]
        )
    return Tensors(stored)


def _numbers(file: Path, name: str, entry: _Entry, crc: Callable[[bytes], int]) -> np.ndarray:
    with open(file, "rb") as opened:
        opened.seek(entry.offset)
        content = opened.read(entry.size)
    if len(content) < entry.size or crc(content) != entry.crc:
        raise UserError(f"{file}: the numbers of {name} do not match their checksum; get it again")
    return np.frombuffer(content, entry.dtype).reshape(entry.shape)


def _crc32c() -> Callable[[bytes], int]:
    """The masked CRC-32C of the table format."""
    try:
        import google_crc32c
    except ImportError:
        raise UserError(
            "the checksums of a TensorFlow checkpoint need google-crc32c: pip install 'electra_jax[tf1]'"
        ) from None

    def masked(content: bytes) -> int:
        found = google_crc32c.value(content)
        return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF

    return masked


def _entries(
    content: bytes, crc: Callable[[bytes], int], shards: int
) -> Iterator[tuple[str, _Entry]]:
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise _DamagedError("does not end as an index does")
    footer = content[-_FOOTER:]
    _, at = _handle(footer, 0)
    (begin, size), _ = _handle(footer, at)
    count = 0
    for _, value in _block(content, begin, size, crc):
        (begin, size), _ = _handle(value, 0)
        for key, entry in _block(content, begin, size, crc):
            count += 1
            if count > MOST_TENSORS:
                raise _DamagedError(f"claims more than {MOST_TENSORS:,} variables")
            if not key:
                _check_header(entry, shards)
                continue
            found = _entry(entry)
            if found.shard >= shards:
                raise _DamagedError(f"names data file {found.shard} of {shards}")
            yield key.decode("utf-8", "replace"), found


def _check_header(value: bytes, shards: int) -> None:
    fields = dict(_fields(value))
    if fields.get(1, 0) != shards:
        raise _DamagedError(f"is of {fields.get(1, 0)!r} data files, {shards} are there")
    if fields.get(2, 0) != 0:
        raise _DamagedError("is of a big-endian machine")


def _block(
    content: bytes, begin: int, size: int, crc: Callable[[bytes], int]
) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a block, whose trailer is a type of compression and a checksum."""
    block = content[begin : begin + size + 5]
    if size < 4 or len(block) < size + 5:
        raise _DamagedError("is cut short")
    if block[size] != 0:
        raise _DamagedError("has a compressed block, which TensorFlow does not write")
    if crc(block[: size + 1]) != int.from_bytes(block[size + 1 :], "little"):
        raise _DamagedError("has a block that does not match its checksum")
    restarts = int.from_bytes(block[size - 4 : size], "little")
    end, at, key = size - 4 - 4 * restarts, 0, b""
    if end < 0:
        raise _DamagedError("has a block with more restarts than bytes")
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise _DamagedError("has an entry that reaches beyond its block")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    begin, at = _varint(content, at)
    size, at = _varint(content, at)
    return (begin, size), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _DamagedError("has a number without an end")


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message: (number, varint or fixed number or bytes)."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(content, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(content[at : at + size], "little"), at + size
        elif kind == 2:
            size, at = _varint(content, at)
            value, at = content[at : at + size], at + size
        else:
            raise _DamagedError(f"has a message with wire type {kind}")
        if at > len(content):
            raise _DamagedError("has a message that is cut short")
        yield tag >> 3, value


def _entry(content: bytes) -> _Entry:
    fields = dict(_fields(content))
    if 7 in fields:
        raise _DamagedError("has a partitioned variable, which is not read")
    number = fields.get(1, 0)
    dtype = _DTYPES.get(number) if isinstance(number, int) else None
    if dtype is None:
        raise _DamagedError(f"has a variable of TensorFlow's type {number!r}, which is not read")
    import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)

    sizes = []
    shape = fields.get(2, b"")
    for field, dim in _fields(shape if isinstance(shape, bytes) else b""):
        if field == 2 and isinstance(dim, bytes):
            size = dict(_fields(dim)).get(1, 0)
            sizes.append(size if isinstance(size, int) else -1)
    numbers = [fields.get(field, 0) for field in (3, 4, 5, 6)]
    if not all(isinstance(number, int) for number in numbers):
        raise _DamagedError("has an entry whose numbers are none")
    shard, offset, size, crc = (int(number) for number in numbers)
    return _Entry(np.dtype(dtype), tuple(sizes), shard, offset, size, crc)
