"""What is held out: a share of the text of every input, documents drawn by a hash and the long ones cut.

A document has the same chance whatever its length. Counting documents alone would leave the size of the
held-out split to chance where some are books, so bytes are counted: units (documents, of long ones
sections of whole paragraphs) are drawn in a random order until the share is reached, in every
stretch of about a million bytes, and what was drawn too much is drawn less in the next stretch. An
input is a matter of its own, so that any process may read it.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from electra_jax.data.prepare import work
from electra_jax.spec import UserError
from electra_jax.text.sources.documents import Document

# Bytes of text among which units are drawn; they are held in memory.
_STRETCH = 2**20

# The least bytes of a section. A document of less than two sections is one unit.
_SHORTEST_SECTION = 2**13

# Sections are as long as leaves at least so many units for the held-out split.
_UNITS = 64

# The most bytes looked at to make sure that something is held out.
_LOOKED_AT = 2**23

# A step of the fractional part that spreads any number of inputs evenly over [0, 1).
_GOLDEN = 0.6180339887498949

Numbered = Iterator[tuple[int, Document]]


class Piece(NamedTuple):
    """Document `number` of an input, or part 1, 2, ... of it (0: all of it), and whether it is held out."""

    number: int
    part: int
    document: Document
    held_out: bool


class _Unit(NamedTuple):
    number: int
    section: int
    document: Document
    size: int


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The rule of a preparation: `fraction` of the bytes, drawn with `seed`.

    Documents of two `section`s (in bytes) or more are cut; of input `certain` something is held out
    in any case.
    """

    seed: int
    fraction: float
    section: int = _SHORTEST_SECTION
    certain: int | None = None

    def pieces(self, file: int, documents: Numbered) -> Iterator[Piece]:
        """The documents of input number `file`, some of them cut, in their order."""
        credit: float | None = None  # bytes still to be held out; below 0 where they were too many
        for stretch in self._stretches(documents):
            order = sorted(range(len(stretch)), key=functools.partial(self._place, file, stretch))
            if credit is None:
                credit = 0 if file == self.certain else -self._behind(file, stretch)
            credit += self.fraction * sum(unit.size for unit in stretch)
            drawn = set()
            for place in order:
                if credit <= 0:
                    break
                drawn.add(place)
                credit -= stretch[place].size
            yield from _pieces(stretch, drawn)

    def phase(self, file: int) -> float:
        """In [0, 1): how much of a unit an input begins behind. Inputs in a row have phases far apart."""
        return (work.draws(f"held out/{self.seed}")() + file * _GOLDEN) % 1

    def _behind(self, file: int, stretch: list[_Unit]) -> float:
        """The bytes that an input begins behind: of a unit that a byte of the stretch, drawn at random, lies in.

        That is where counting would stand in the middle of an endless input, so that the share is
        right on average for inputs of any size, of a single document too.
        """
        ends = list(itertools.accumulate(unit.size for unit in stretch))
        byte = work.draws(f"held out/{self.seed}/{file}")() * ends[-1]
        return self.phase(file) * stretch[bisect.bisect_right(ends, byte)].size

    def _place(self, file: int, stretch: list[_Unit], place: int) -> float:
        unit = stretch[place]
        section = f"/{unit.section}" if unit.section else ""
        return work.draws(f"held out/{self.seed}/{file}/{unit.number}{section}")()

    def _stretches(self, documents: Numbered) -> Iterator[list[_Unit]]:
        """The units of whole documents, about `_STRETCH` bytes of them at a time."""
        units: list[_Unit] = []
        size = 0
        for number, document in documents:
            for section, (lines, own) in enumerate(_sections(document, self.section)):
                units.append(_Unit(number, section, lines, own))
                size += own
            if size >= _STRETCH:
                yield units
                units, size = [], 0
        if units:
            yield units


def rule(
    seed: int,
    fraction: float,
    stored: int,
    inputs: int,
    documents: Callable[[int], Numbered],
) -> HeldOut:
    """The rule for a corpus of so many `stored` bytes and `inputs`, each read by `documents`.

    Makes sure, by reading the first few megabytes, that something is held out. Raises UserError
    when there is nothing to choose from.
    """
    held_out = HeldOut(seed, fraction, max(_SHORTEST_SECTION, int(stored * fraction / _UNITS)))
    size, units = 0, 0
    with_text = []
    for file in range(inputs):
        found = 0
        for piece in held_out.pieces(file, documents(file)):
            if piece.held_out:
                return held_out
            found += sum(1 for _ in _sections(piece.document, held_out.section))
            size += _size(piece.document)
            if size >= _LOOKED_AT:
                break
        units += found
        with_text += [file] * (found > 0)
        if size >= _LOOKED_AT:
            break
    if units < 2:
        raise UserError(
            "the input holds a single document, too short to be cut, so none can be held out; separate "
            "documents by blank lines, name held-out files with --valid-input, or give --valid-fraction 0"
        )
    return dataclasses.replace(held_out, certain=min(with_text, key=held_out.phase))


def _sections(document: Document, least: int) -> Iterator[tuple[Document, int]]:
    """A document cut at paragraphs into sections of at least `least` bytes, each with its bytes.

    One of less than two sections stays whole.
    """
    left = _size(document)
    begin, size = 0, 0
    for end, line in enumerate(document if left >= 2 * least else (), 1):
        size += _size([line])
        if size >= least and left - size >= least:
            yield document[begin:end], size
            begin, left, size = end, left - size, 0
    yield document[begin:], left


def _pieces(stretch: Iterable[_Unit], drawn: set[int]) -> Iterator[Piece]:
    """The units of a stretch, those of a document on the same side in a row put together again."""
    documents: dict[int, list[Piece]] = {}
    for place, unit in enumerate(stretch):
        parts = documents.setdefault(unit.number, [])
        held_out = place in drawn
        if parts and parts[-1].held_out == held_out:
            parts[-1].document.extend(unit.document)
        else:
            parts.append(Piece(unit.number, 1 + len(parts), list(unit.document), held_out))
    for parts in documents.values():
        if len(parts) == 1:
            yield parts[0]._replace(part=0)
        else:
            yield from parts


def _size(lines: Document) -> int:
    """The bytes of lines: about as many for a token in every script."""
    return sum(len(line) if line.isascii() else len(line.encode()) for line in lines)
