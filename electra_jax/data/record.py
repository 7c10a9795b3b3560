"""One row as the bytes of one ArrayRecord record: a TFDS example with a single integer array."""

import functools
from collections.abc import Sequence

import numpy as np

# The lines of the array, in this order. `docs` is 0 for padding, else the number of the document
# in the row; `word_starts` is 1 where a token begins a word (special tokens do, padding does not).
FIELDS = ("ids", "types", "docs", "word_starts")

# Name of the one TFDS feature.
FEATURE = "row"


def dtype_for(vocab_size: int) -> np.dtype:
    """The narrowest stored type that holds every token id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<i4")


@functools.cache
def header(seq_len: int, dtype: np.dtype) -> bytes:
    """What precedes the array's bytes in every record of this shape.

    A record is a tf.train.Example with one bytes feature. All rows of a folder have one size, so
    the protocol buffer around the array is the same for all, and reading needs no parser.
    """
    size = len(FIELDS) * seq_len * dtype.itemsize
    # From the inside out, each the key of a protocol buffer field and the size of what follows:
    # BytesList.value, Feature.bytes_list, the map entry's value and key, Features, Example.
    inner = b"\x0a" + _varint(size)
    bytes_list = b"\x0a" + _varint(len(inner) + size) + inner
    value = b"\x12" + _varint(len(bytes_list) + size) + bytes_list
    key = b"\x0a" + _varint(len(FEATURE)) + FEATURE.encode()
    entry = b"\x0a" + _varint(len(key) + len(value) + size) + key + value
    return b"\x0a" + _varint(len(entry) + size) + entry


def size(seq_len: int, dtype: np.dtype) -> int:
    """The bytes of every record of this shape."""
    return len(header(seq_len, dtype)) + len(FIELDS) * seq_len * dtype.itemsize


def encode(rows_NxFxL: np.ndarray) -> np.ndarray:
    """Rows of the stored dtype as records, uint8 [N, record bytes]."""
    rows, fields, seq_len = rows_NxFxL.shape
    head = np.frombuffer(header(seq_len, rows_NxFxL.dtype), np.uint8)
    body_NxR = np.ascontiguousarray(rows_NxFxL).reshape(rows, fields * seq_len).view(np.uint8)
    return np.concatenate([np.broadcast_to(head, (rows, head.size)), body_NxR], axis=1)


def decode(records: Sequence[bytes], seq_len: int, dtype: np.dtype) -> np.ndarray:
    """The inverse of `encode`: [N, F, L] of the stored dtype.

    Raises ValueError when a record has another size or header than this folder's rows.
    """
    head, expected = header(seq_len, dtype), size(seq_len, dtype)
    if any(len(r) != expected for r in records):
        found = next(len(r) for r in records if len(r) != expected)
        raise ValueError(f"a record of {found} bytes, expected {expected}")
    bytes_NxS = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), expected)
    if (bytes_NxS[:, : len(head)] != np.frombuffer(head, np.uint8)).any():
        raise ValueError("a record with another header than this folder's rows")
    body_NxR = np.ascontiguousarray(bytes_NxS[:, len(head) :])
    return body_NxR.view(dtype).reshape(len(records), len(FIELDS), seq_len)


def _varint(n: int) -> bytes:
    """A protocol buffer's base-128 integer."""
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
