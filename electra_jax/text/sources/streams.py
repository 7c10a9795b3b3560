"""Compressed or plain UTF-8 files as lists of lines, in flat memory; refuses what is not text."""

import os
from collections.abc import Callable, Iterable, Iterator

from electra_jax.spec import UserError
from electra_jax.text.sources import compression, stored

# First bytes that prove a file is something else than its name says.
_MAGIC = (
    (b"\x1f\x8b", "gzip data; name it .gz"),
    (b"BZh", "bzip2 data; name it .bz2"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data; name it .zst"),
    (b"\xfd7zXZ\x00", "xz data; name it .xz"),
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
    if suffix and suffix.lower() in compression.SUFFIXES:
        return os.path.splitext(stem)[1].lower(), suffix.lower()
    return suffix.lower(), ""


def lines(path: str, consumed: Consumed | None = None) -> Iterator[list[str]]:
    """Yields the file's lines in order, without line feeds, as many at a time as a block holds.

    A UTF-8 byte-order mark at the start is dropped. Raises UserError, with the byte of the
    (uncompressed) content where it was met, for NUL bytes, bytes that are not UTF-8, and damaged
    or truncated compression. `consumed` is called with the count of stored bytes read.
    """
    yield from decoded(path, blocks(path, consumed))


def decoded(path: str, content: Iterable[bytes], opening: bool = True) -> Iterator[list[str]]:
    """`lines` of content that was read already, the `opening` of the file or what follows somewhere."""
    offset, line = 0, 1  # of the first byte not yet handed out
    held: list[bytes] = []  # the start of a line whose end has not been read
    for block in content:
        if opening and offset == 0 and not held:
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
    suffix = split_suffix(path)[1]
    position = 0
    told = 0
    try:
        with stored.opened(path) as raw:
            for block in compression.blocks(raw, suffix):
                if consumed is not None:
                    told, before = raw.tell(), told
                    consumed(told - before)
                yield block
                position += len(block)
            if consumed is not None:
                consumed(raw.tell() - told)
    except EOFError:
        raise UserError(
            f"{path} is cut short: its {suffix} data end after {position} bytes of content, "
            "before the end-of-stream mark; fetch the file again"
        ) from None
    except compression.Damaged as error:
        raise UserError(
            f"{path} is damaged: its {suffix} data cannot be read after {position} bytes of "
            f"content ({error}); fetch the file again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


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
