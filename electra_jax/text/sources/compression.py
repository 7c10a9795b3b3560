"""Stored bytes to their content in blocks: gzip, bzip2, xz and Zstandard, one stream or several in a row.

What follows a stream must be another one. The tools of these formats pass over anything else with a
warning at most, and so lose the rest of a file where one bit of a stream's header is wrong.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from electra_jax.spec import UserError

BLOCK = 1 << 20  # bytes of content held at a time

# Zstandard's own limit for `zstd -d --long=31`. The memory is taken by frames that need it alone.
_LARGEST_WINDOW = 1 << 31


class Damaged(Exception):
    """Compressed data that cannot be read; the message says why."""


def blocks(raw: BinaryIO, suffix: str) -> Iterator[bytes]:
    """The content of `raw`, stored as `suffix` (one of `SUFFIXES`) says, in blocks of about `BLOCK` bytes.

    Raises Damaged for data that are none of the format or hold something else after a stream, EOFError
    for data that end within a stream, UserError where a library is missing.
    """
    return _READERS[suffix](raw)


def _plain(raw: BinaryIO) -> Iterator[bytes]:
    while block := raw.read(BLOCK):
        yield block


def _gzip(raw: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as stream:
        while block := _explained(stream.read, BLOCK):
            yield block


def _bz2(raw: BinaryIO) -> Iterator[bytes]:
    # Not `bz2.BZ2File`: it takes whatever follows the first stream for the end of the file.
    return _streams(raw, bz2.BZ2Decompressor)


def _xz(raw: BinaryIO) -> Iterator[bytes]:
    return _streams(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))


def _streams(raw: BinaryIO, new: Callable[[], Any]) -> Iterator[bytes]:
    """The content of streams in a row, each read by a decompressor of its own."""
    stream, inside, ended = new(), False, 0
    while data := raw.read(BLOCK // 8 or 1):
        while data:
            if not inside and ended:
                data = data.lstrip(b"\0")  # padding, as tapes and xz have it
                if not data:
                    break
            try:
                block = stream.decompress(data, BLOCK)
                inside = True
                while block:
                    yield block
                    wanting = stream.needs_input or stream.eof
                    block = b"" if wanting else stream.decompress(b"", BLOCK)
            except (OSError, lzma.LZMAError) as error:
                what = str(error) if inside or not ended else "what follows is no other stream"
                after = f"in stream {ended + 1}: " if inside else f"after stream {ended}: "
                raise Damaged((after if ended else "") + what) from None
            data = b""
            if stream.eof:
                data, stream, inside, ended = stream.unused_data, new(), False, ended + 1
    if inside:
        raise EOFError


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            "reading .zst needs the zstandard package: pip install 'electra-jax[zstd]'"
        ) from None
    # Not `stream_reader`: it takes a truncated frame for a complete one.
    library = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    frame, inside = library.decompressobj(), False
    while data := raw.read(BLOCK // 8 or 1):
        while data:
            try:
                block, inside = frame.decompress(data), True
            except zstandard.ZstdError as error:
                raise Damaged(str(error)) from None
            if block:
                yield block
            if not frame.eof:
                break
            data = frame.unused_data
            frame, inside = library.decompressobj(), False
    if inside:
        raise EOFError


def _explained(read: Callable[[int], bytes], size: int) -> bytes:
    try:
        return read(size)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(str(error)) from None


_READERS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "": _plain,
    ".gz": _gzip,
    ".bz2": _bz2,
    ".xz": _xz,
    ".zst": _zstd,
}
SUFFIXES = tuple(_READERS)
