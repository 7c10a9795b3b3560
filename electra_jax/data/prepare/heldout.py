"""What is held out: a share of the text of every input, documents drawn by a hash and the long ones cut.

A document has the same chance whatever its length. Counting documents alone would leave the size of the
held-out split to chance where some are books, so bytes are counted: units (documents, of long ones
sections of whole paragraphs) are drawn in a random order until the share is reached, in every
stretch of about a million bytes, and what was drawn too much is drawn less in the next stretch. An
input is a matter of its own, so that any process may read it.
"""

import bisect
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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


# Documents by number, with the bytes of each of their sections.
Sized = Iterable[tuple[int, Sequence[int]]]


class _Unit(NamedTuple):
    number: int
    section: int
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
        waiting: collections.deque[Document] = collections.deque()

        def sized() -> Iterator[tuple[int, list[int]]]:
            for number, document in documents:
                waiting.append(document)
                yield number, self.sizes(document)

        for number, flags in self.drawn(file, sized()):
            yield from self.cut(number, waiting.popleft(), iter(flags))

    def sizes(self, document: Document) -> list[int]:
        """The bytes of the sections of a document."""
        return [size for _, size in _sections(document, self.section)]

    def cut(self, number: int, document: Document, flags: Iterator[bool]) -> Iterator[Piece]:
        """Document `number`, cut where its sections change sides: the next of `flags` say which are held out."""
        sections = [(lines, next(flags)) for lines, _ in _sections(document, self.section)]
        sides = itertools.groupby(sections, key=lambda section: section[1])
        runs = [(held, [line for lines, _ in run for line in lines]) for held, run in sides]
        for part, (held_out, lines) in enumerate(runs, 1):
            yield Piece(number, part if len(runs) > 1 else 0, lines, held_out)

    def drawn(self, file: int, documents: Sized) -> Iterator[tuple[int, list[bool]]]:
        """For every document of input number `file` its number, and of each of its sections whether it is held out."""
        credit: float | None = None  # bytes still to be held out; below 0 where they were too many
        for stretch in _stretches(documents):
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
            flags = enumerate(stretch)
            for number, units in itertools.groupby(flags, key=lambda unit: unit[1].number):
                yield number, [place in drawn for place, _ in units]

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
    held_out = plain_rule(seed, fraction, stored)

    def sized(file: int) -> Sized:
        return ((number, held_out.sizes(document)) for number, document in documents(file))

    return made_certain(held_out, inputs, sized)


def plain_rule(seed: int, fraction: float, stored: int) -> HeldOut:
    """The rule for a corpus of so many `stored` bytes, which may hold out nothing of a small one."""
    return HeldOut(seed, fraction, max(_SHORTEST_SECTION, int(stored * fraction / _UNITS)))


def made_certain(held_out: HeldOut, inputs: int, sized: Callable[[int], Sized]) -> HeldOut:
    """The rule that holds out something of `inputs` whose documents are `sized`. UserError as of `rule`."""
    size, units = 0, 0
    with_text = []
    for file in range(inputs):
        found = 0
        for own, held in _one_by_one(held_out, file, sized(file)):
            if held:
                return held_out
            found += len(own)
            size += sum(own)
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


def _one_by_one(held_out: HeldOut, file: int, sized: Sized) -> Iterator[tuple[list[int], bool]]:
    """The bytes of the sections of every piece, and whether it is held out."""
    waiting: collections.deque[Sequence[int]] = collections.deque()

    def noted() -> Iterator[tuple[int, Sequence[int]]]:
        for number, sizes in sized:
            waiting.append(sizes)
            yield number, sizes

    for _, flags in held_out.drawn(file, noted()):
        sections = zip(waiting.popleft(), flags, strict=True)
        for held, run in itertools.groupby(sections, key=lambda section: section[1]):
            yield [size for size, _ in run], held


def _stretches(documents: Sized) -> Iterator[list[_Unit]]:
    """The units of whole documents, about `_STRETCH` bytes of them at a time."""
    units: list[_Unit] = []
    size = 0
    for number, sizes in documents:
        for section, own in enumerate(sizes):
            units.append(_Unit(number, section, own))
            size += own
        if size >= _STRETCH:
            yield units
            units, size = [], 0
    if units:
        yield units


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


def _size(lines: Document) -> int:
    """The bytes of lines: about as many for a token in every script."""
    return sum(len(line) if line.isascii() else len(line.encode()) for line in lines)
