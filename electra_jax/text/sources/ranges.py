"""Large files in ranges of their stored bytes, each read by a process of its own: together, the documents of the file.

What can be read from the middle: plain text (a document belongs to the range in which the blank line before it
begins), JSON lines, Parquet by row groups, and text and JSON lines in bzip2 of several streams, as pbzip2 writes it, or
in bgzip's gzip: there a stream belongs to the range that it begins in. Everything else is read whole: one compressed
stream, WikiExtractor's text, joined lines, data sets.
"""

import contextlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from electra_jax.spec import UserError
from electra_jax.text.sources import (
    compression,
    datasets,
    documents,
    jsonlines,
    layout,
    markup,
    parquet,
    stored,
    streams,
)
from electra_jax.text.sources.layout import Document

# What begins a stream: so many given bits that no other data look like it (a chance of 2^-76 a byte).
_STREAMS = {
    ".bz2": re.compile(rb"BZh[1-9]1AY&SY"),
    ".gz": re.compile(rb"\x1f\x8b\x08\x04.{4}.{2}\x06\x00BC\x02\x00", re.DOTALL),
}
_LONGEST_START = 18

# A file that has no second stream in so many bytes has one alone, or few.
_LOOKED_AT = 2**22


class Range(NamedTuple):
    """The stored bytes [start, stop) of a file that is cut "by" documents, lines or row groups; "" for all of it."""

    start: int
    stop: int
    by: str


def cut(path: str, size: int, text_key: str, join_lines: bool, longest: int) -> list[Range]:
    """A file of so many bytes as ranges of at most `longest`, as far as its format can be read from the middle."""
    by = _cut_by(path, text_key, join_lines) if size > longest else ""
    if not by:
        return [Range(0, size, "")]
    count = -(-size // longest)
    borders = [size * number // count for number in range(count + 1)]
    return [Range(*border, by) for border in itertools.pairwise(borders)]


def read(
    path: str,
    text_key: str,
    part: Range,
    join_lines: bool = False,
    skipped: documents.Skipped | None = None,
) -> Iterator[Document]:
    """Yields the documents of a range; those of all ranges of a file, in a row, are what `documents.read` yields.

    Raises UserError as that does, but not for a file without documents where it is cut.
    """
    skipped = documents.Skipped() if skipped is None else skipped
    if not part.by:
        yield from documents.read(path, text_key, join_lines=join_lines, skipped=skipped)
        return
    try:
        if part.by == "row groups":
            texts = parquet.texts(path, text_key, None, skipped, (part.start, part.stop))
            lines_of = (text.split("\n") for text in texts)
            yield from filter(None, (layout.paragraphs(lines, join_lines) for lines in lines_of))
            return
        content = streams.decoded(path, _content(path, part), opening=part.start == 0)
        lines = itertools.chain.from_iterable(content)
        if part.by == "documents":
            yield from layout.documents(lines)
            return
        texts = jsonlines.texts(path, text_key, lines, skipped)
        records = (layout.paragraphs(text.split("\n"), join_lines) for text in texts)
        yield from filter(None, records)
    except (UserError, compression.Damaged, EOFError, OSError):
        # Read from the start, the error names the line or byte.
        for _ in documents.read(path, text_key, join_lines=join_lines):
            pass
        raise


def _cut_by(path: str, text_key: str, join_lines: bool) -> str:
    """What a file can be cut by; "" for one that is read whole."""
    if datasets.is_name(path):
        return ""
    kind, packed = streams.split_suffix(path)
    if kind in documents.PARQUET:
        return "" if packed else "row groups"
    if packed and not _has_streams(path, packed):
        return ""
    opening = next(streams.lines(path), [])
    if documents.is_json(path, kind, opening):
        return "lines"
    return "" if join_lines or markup.looks_like(opening) else "documents"


def _has_streams(path: str, suffix: str) -> bool:
    """Whether a compressed file has several streams that can be found from the middle."""
    start = _STREAMS.get(suffix)
    if start is None:
        return False
    with stored.opened(path) as raw:
        opening = raw.read(_LOOKED_AT)
    return start.match(opening) is not None and start.search(opening, 1) is not None


def _content(path: str, part: Range) -> Iterator[bytes]:
    """The bytes of the documents or lines that belong to a range."""
    suffix = streams.split_suffix(path)[1]
    with contextlib.ExitStack() as stack:
        here, after = (stack.enter_context(stored.opened(path)) for _ in range(2))
        begin, end = (_first(here, suffix, place) for place in (part.start, part.stop))
        here.seek(begin)
        after.seek(end)
        inside = compression.blocks(io.BufferedReader(_Section(here, end - begin)), suffix)
        tail = compression.blocks(after, suffix)
        yield from _owned(inside, tail, part.start == 0, part.by == "documents")


def _first(raw: BinaryIO, suffix: str, place: int) -> int:
    """Where the first stream that begins at `place` or later begins: the file's end where there is none."""
    if not suffix or place == 0:
        return place
    raw.seek(place)
    held = b""
    while block := raw.read(compression.BLOCK):
        held += block
        if found := _STREAMS[suffix].search(held):
            return place + found.start()
        place += max(0, len(held) - _LONGEST_START)
        held = held[-_LONGEST_START:]
    return place + len(held)


class _Section(io.RawIOBase):
    """The next `left` bytes of a file."""

    def __init__(self, raw: BinaryIO, left: int) -> None:
        self._raw, self._left = raw, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _owned(
    inside: Iterable[bytes], tail: Iterable[bytes], first: bool, by_document: bool
) -> Iterator[bytes]:
    """The content that belongs to a range: `inside` from its first border on, and of `tail` what leads to one.

    A line belongs to the range that the line feed before it lies in, a document to that of its blank line. The
    first range begins with what has none before it.
    """
    lines = _Lines(inside, tail, first)
    if not first:
        lines.next()
        found = not by_document and lines.owned
        while by_document and lines.owned and not found:
            found = _is_blank(lines.next())
        if not found:
            return
    yield from lines.inside()
    while by_document or lines.owned:
        owned = lines.owned
        line = lines.next()
        if not line or (not owned and _is_blank(line)):
            return
        yield line


class _Lines:
    """The content of a range and of what follows it, by lines or as it comes.

    `owned`: the line feed before the next line lies inside the range, or this is the middle of such a line.
    """

    def __init__(self, inside: Iterable[bytes], tail: Iterable[bytes], first: bool) -> None:
        self._blocks = itertools.chain(((b, True) for b in inside), ((b, False) for b in tail))
        self._block, self._place, self._inside = b"", 0, True
        self.owned = first

    def next(self) -> bytes:
        """The next line with its line feed, or what is left of it; b"" at the end."""
        parts = []
        while self._place < len(self._block) or self._advance():
            cut = self._block.find(b"\n", self._place) + 1
            parts.append(self._block[self._place : cut or len(self._block)])
            self._place = cut or len(self._block)
            if cut:
                self.owned = self._inside
                break
        return b"".join(parts)

    def inside(self) -> Iterator[bytes]:
        """What is left of the range."""
        while self._place < len(self._block) or self._advance():
            if not self._inside:
                return
            self.owned = True
            yield self._block[self._place :]
            self._place = len(self._block)

    def _advance(self) -> bool:
        self._block, self._inside = next(self._blocks, (b"", False))
        self._place = 0
        return self._block != b""


def _is_blank(line: bytes) -> bool:
    return not line.decode("utf-8", "replace").strip()
