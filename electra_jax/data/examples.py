"""Documents to fixed-length rows: where to cut a stream of tokens, and the rows that come of it.

`cut` decides on lengths and coin flips alone; `assemble` moves the tokens, a block of documents at
a time. The rules of `cut` are those of the original's data builder (Clark et al., 2020): lines are
collected until a target length is reached, and shared out between two segments.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data import record
from electra_jax.spec import UserError, check_choice
from electra_jax.text.tokenizer import SpecialIds

SEGMENTS = ("pair", "single", "full")
OVERFLOW = ("carry", "drop")

# The original's choices (google-research/electra, build_pretraining_dataset.py): the share of rows
# with one segment, the share of rows with a shorter target, and the shortest such target.
SINGLE_SHARE = 0.1
SHORT_SHARE = 0.05
SHORTEST_TARGET = 5

# A row shorter than this has no room for two segments worth the name; the longest is a guard
# against a mistyped number (row numbers and positions are int32).
SHORTEST_ROW, LONGEST_ROW = 8, 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """How documents become rows of `seq_len` tokens: the choices a user has.

    segments: "pair" ([CLS] A [SEP] B [SEP]), "single" ([CLS] A [SEP], else like "pair") or "full"
    (one segment that fills the row whatever the lines; no short targets). overflow: what does not
    fit in a row is carried on to the next ("carry") or thrown away ("drop", as the original does).
    """

    seq_len: int
    segments: str = "pair"
    overflow: str = "carry"

    def __post_init__(self) -> None:
        check_choice("segments", self.segments, SEGMENTS)
        check_choice("overflow", self.overflow, OVERFLOW)
        if not SHORTEST_ROW <= self.seq_len <= LONGEST_ROW:
            raise UserError(
                f"sequence length {self.seq_len} makes no sense; "
                f"expected {SHORTEST_ROW} to {LONGEST_ROW}, usually 128 or 512"
            )


class Row(NamedTuple):
    """One row: the stretches [start, stop) of the document's tokens in each segment, and whether it
    was begun with a short target. `second` is empty for a row of one segment."""

    first: list[tuple[int, int]]
    second: list[tuple[int, int]]
    short: bool


def cut(lengths: Sequence[int], plan: Plan, uniform: Callable[[], float]) -> list[Row]:
    """Cuts a document, given the number of tokens of each of its lines, into rows.

    `uniform` gives numbers in [0, 1); equal numbers give equal rows. With "carry" (and always with
    "full") the rows hold every token once and in order.
    """
    ends = list(itertools.accumulate(n for n in lengths if n))
    if not ends:
        return []
    if plan.segments == "full":
        step = plan.seq_len - 2
        return [Row([(at, min(at + step, ends[-1]))], [], False) for at in range(0, ends[-1], step)]
    if plan.overflow == "drop":
        return list(_cut_drop(ends, plan, uniform))
    return list(_cut_carry(ends, plan, uniform))


def _target(plan: Plan, uniform: Callable[[], float]) -> int:
    """The number of tokens at which the next row is closed."""
    if uniform() < SHORT_SHARE:
        return SHORTEST_TARGET + int(uniform() * (plan.seq_len + 1 - SHORTEST_TARGET))
    return plan.seq_len


def _is_single(plan: Plan, uniform: Callable[[], float]) -> bool:
    return plan.segments == "single" or uniform() < SINGLE_SHARE


def _cut_carry(ends: list[int], plan: Plan, uniform: Callable[[], float]) -> Iterator[Row]:
    """The original's rules, with two changes that keep the text whole and in order.

    What a row has no room for begins the next one. Once a line has gone to the second segment, the
    later ones do too. A first segment too long for the row by itself is cut at half a row, so
    that its rest becomes the second segment (the original would drop the rest, and the row would
    have one segment: with paragraphs for lines, that would be most rows).
    """
    room = plan.seq_len
    at, line, total = 0, 0, ends[-1]
    while at < total:
        target = _target(plan, uniform)
        last = min(bisect.bisect_left(ends, at + target, line), len(ends) - 1)
        if _is_single(plan, uniform):
            middle = stop = min(ends[last], at + room - 2)
        else:
            half = (target - 3) // 2
            middle = ends[line]
            for end in ends[line + 1 : last + 1]:
                if end - at >= half and (middle - at >= half or uniform() >= 0.5):
                    break
                middle = end
            if middle - at > room - 2:
                middle = at + (room - 3) // 2
            stop = max(middle, min(ends[last], at + room - 3))
        yield Row([(at, middle)], [(middle, stop)] if stop > middle else [], target < room)
        at = stop
        line = bisect.bisect_right(ends, at, line)


def _cut_drop(ends: list[int], plan: Plan, uniform: Callable[[], float]) -> Iterator[Row]:
    """The original's rules to the letter: overflow is lost, and a line that still fits under the
    first segment's target joins it even after others have gone to the second segment."""
    room, begin = plan.seq_len, 0
    starts = [0, *ends[:-1]]
    while begin < len(ends):
        target = _target(plan, uniform)
        reach = starts[begin] + target
        last = min(bisect.bisect_left(ends, reach, begin), len(ends) - 1)
        single = _is_single(plan, uniform)
        half = (target - 3) // 2
        first: list[tuple[int, int]] = []
        second: list[tuple[int, int]] = []
        size = 0
        for start, end in zip(starts[begin : last + 1], ends[begin : last + 1], strict=True):
            if (
                single
                or not first
                or size + end - start < half
                or (not second and size < half and uniform() < 0.5)
            ):
                first.append((start, end))
                size += end - start
            else:
                second.append((start, end))
        first, size = _trim(first, room - 2)
        second, _ = _trim(second, room - size - 3)
        yield Row(first, second, target < room)
        begin = last + 1


def _trim(stretches: list[tuple[int, int]], room: int) -> tuple[list[tuple[int, int]], int]:
    """The first `room` tokens of the stretches, and how many there are."""
    kept, size = [], 0
    for start, end in stretches:
        if size >= room:
            break
        end = min(end, start + room - size)
        kept.append((start, end))
        size += end - start
    return kept, size


def assemble(
    rows: Sequence[tuple[int, Row]],
    tokens_N: np.ndarray,
    starts_N: np.ndarray,
    seq_len: int,
    special: SpecialIds,
    dtype: np.dtype,
) -> np.ndarray:
    """The rows as stored, `dtype` [R, F, L] with the lines of `record.FIELDS`.

    `rows` pairs each row with the place of its document's first token in `tokens_N`, the ids of
    many documents one after another; `starts_N` says which of them begin a word.
    """
    targets, sources, sizes, firsts, seconds = [], [], [], [], []
    for r, (base, row) in enumerate(rows):
        to = r * seq_len + 1
        begin = to
        for start, stop in row.first:
            targets.append(to)
            sources.append(base + start)
            sizes.append(stop - start)
            to += stop - start
        firsts.append(to - begin)
        begin = to = to + 1
        for start, stop in row.second:
            targets.append(to)
            sources.append(base + start)
            sizes.append(stop - start)
            to += stop - start
        seconds.append(to - begin)
    sizes_P = np.array(sizes, np.int64)
    within = np.arange(sizes_P.sum()) - np.repeat(np.cumsum(sizes_P) - sizes_P, sizes_P)
    to_M = np.repeat(np.array(targets, np.int64), sizes_P) + within
    from_M = np.repeat(np.array(sources, np.int64), sizes_P) + within

    out_FxRxL = np.zeros((len(record.FIELDS), len(rows), seq_len), dtype)
    ids, types, docs, starts = out_FxRxL
    ids[:] = special.pad
    ids.reshape(-1)[to_M] = tokens_N[from_M]
    starts.reshape(-1)[to_M] = starts_N[from_M]

    row_R = np.arange(len(rows))
    first_R, second_R = np.array(firsts, np.int64), np.array(seconds, np.int64)
    paired_R = second_R > 0
    end_R = 1 + first_R + np.where(paired_R, second_R + 1, 0)  # the place of the last [SEP]
    place_L = np.arange(seq_len)
    types[:] = (place_L > 1 + first_R[:, None]) & (place_L <= end_R[:, None])
    docs[:] = place_L <= end_R[:, None]
    ids[:, 0] = special.cls
    ids[row_R, 1 + first_R] = special.sep
    ids[row_R, end_R] = special.sep
    # Special tokens are words of their own, and so is what a cut has left of a word.
    starts[:, :2] = 1
    starts[row_R, 1 + first_R] = 1
    starts[row_R, end_R] = 1
    starts[row_R[paired_R], 2 + first_R[paired_R]] = 1
    return out_FxRxL.transpose(1, 0, 2)
