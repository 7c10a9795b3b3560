"""Compressed or plain UTF-8 files as lists of lines, in flat memory; refuses what is not text."""

import bz2
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from electra_jax.spec import UserError

_BLOCK = 1 << 20  # bytes of content held at a time

# First bytes that prove a file is something else than its name says.
_MAGIC = (
    (b"\x1f\x8b", "gzip data; name it .gz"),
    (b"BZh", "bzip2 data; name it .bz2"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data; name it .zst"),
    (b"PAR1", "a Parquet file; name it .parquet"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"%PDF", "a PDF document; extract its text first"),
    (b"\xff\xfe", "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
)
_BOM = b"\xef\xbb\xbf"

Consumed = Callable[[int], None]


def split_suffix(path: str) -> tuple[str, str]:
    """(format suffix, compression suffix), lower case: `a.txt.gz` -> (".txt", ".gz")."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() in _DECODERS and suffix:
        return os.path.splitext(stem)[1].lower(), suffix.lower()
    return suffix.lower(), ""


def lines(path: str, consumed: Consumed | None = None) -> Iterator[list[str]]:
    """Yields the file's lines in order, without line feeds, as many at a time as a block holds.

    A UTF-8 byte-order mark at the start is dropped. Raises UserError, with the byte of the
    (uncompressed) content where it was met, for NUL bytes, bytes that are not UTF-8, and damaged
    or truncated compression. `consumed` is called with the count of stored bytes read.
    """
    offset, line = 0, 1  # of the first byte not yet handed out
    held: list[bytes] = []  # the start of a line whose end has not been read
    for block in blocks(path, consumed):
        if offset == 0 and not held:
            _refuse_other_formats(path, block)
            if block.startswith(_BOM):
                block, offset = block[len(_BOM) :], len(_BOM)
        if b"\0" in block:
            at = offset + sum(map(len, held)) + block.find(b"\0")
            raise UserError(
                f"{path} is not text: byte {at} is NUL; expected UTF-8 text, found binary data "
                "or another encoding (for UTF-16: iconv -f UTF-16 -t UTF-8)"
            )
        cut = block.rfind(b"\n") + 1
        if not cut:
            held.append(block)
            continue
        whole = b"".join((*held, block[:cut]))
        held = [block[cut:]] if cut < len(block) else []
        ready = _decode(path, whole, offset, line).split("\n")
        ready.pop()  # what follows the last line feed: nothing
        offset, line = offset + len(whole), line + len(ready)
        yield ready
    if held:
        yield [_decode(path, b"".join(held), offset, line)]


def blocks(path: str, consumed: Consumed | None = None) -> Iterator[bytes]:
    """Yields the uncompressed bytes of a file in blocks of about 1 MiB."""
    compression = split_suffix(path)[1]
    position = 0
    told = 0
    try:
        with open(path, "rb") as raw:
            for block in _DECODERS[compression](raw):
                if consumed is not None:
                    told, before = raw.tell(), told
                    consumed(told - before)
                yield block
                position += len(block)
    except EOFError:
        raise UserError(
            f"{path} is cut short: its {compression} data end after {position} bytes of content, "
            "before the end-of-stream mark; fetch the file again"
        ) from None
    except (zlib.error, gzip.BadGzipFile, _Damaged) as error:
        raise _damaged(path, compression, position, error) from None
    except OSError as error:
        if compression == ".bz2" and error.errno is None:
            raise _damaged(path, compression, position, error) from None
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


class _Damaged(Exception):
    """Zstandard data that cannot be decompressed."""


def _damaged(path: str, compression: str, position: int, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged: its {compression} data cannot be read after {position} bytes of "
        f"content ({error}); fetch the file again"
    )


def _plain(raw: BinaryIO) -> Iterator[bytes]:
    while block := raw.read(_BLOCK):
        yield block


def _gzip(raw: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _bz2(raw: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(raw) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            "reading .zst needs the zstandard package: pip install 'electra-jax[zstd]'"
        ) from None
    # Not `stream_reader`: it takes a truncated frame for a complete one.
    frame, started = zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while data := raw.read(_BLOCK // 8):
            while data:
                block, started = frame.decompress(data), True
                if block:
                    yield block
                if not frame.eof:
                    break
                data = frame.unused_data
                frame, started = zstandard.ZstdDecompressor().decompressobj(), False
    except zstandard.ZstdError as error:
        raise _Damaged(str(error)) from None
    if started:
        raise EOFError


_DECODERS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "": _plain,
    ".gz": _gzip,
    ".bz2": _bz2,
    ".zst": _zstd,
}


def _refuse_other_formats(path: str, opening: bytes) -> None:
    for magic, found in _MAGIC:
        if opening.startswith(magic):
            raise UserError(f"{path} is not UTF-8 text: it begins as {found}")


def _decode(path: str, data: bytes, offset: int, line: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at, line = offset + error.start, line + data.count(b"\n", 0, error.start)
        raise UserError(
            f"{path} is not UTF-8: byte {at} (0x{data[error.start]:02x}, line {line}); convert it, "
            "for example: iconv -f LATIN1 -t UTF-8"
        ) from None
