"""Cutting and assembling rows: the original's rules, nothing lost, and every token in its place."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data import examples, record
from electra_jax.data.examples import Plan, Row, assemble, cut
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
NEVER_SHORT, PAIR, HEADS, TAILS = 0.9, 0.9, 0.4, 0.6


def scripted(*values: float):
    """Draws that are given beforehand; running out of them is an error."""
    return iter(values).__next__


def often_small(seed: int):
    """Draws that are often small, so that short targets and single segments are not rare."""
    draw = random.Random(seed).random
    return lambda: draw() ** 2


def reference_rows(
    lengths: list[int], seq_len: int, uniform, carry: bool
) -> list[tuple[list, list]]:
    """The rules of the original's builder said again, on lists of tokens, the slow way; with
    `carry`, our two changes to them as well.

    Only the order of the draws is ours: the first row's target is drawn too, because here each
    document begins afresh.
    """

    def draw_target() -> int:
        if uniform() < 0.05:
            return 5 + int(uniform() * (seq_len - 4))
        return seq_len

    count = itertools.count()
    rows, waiting = [], []
    target = draw_target()

    def emit() -> None:
        nonlocal target, waiting
        limit = 100_000 if uniform() < 0.1 else (target - 3) // 2
        a, b = [], []
        for sentence in waiting:
            if len(a) + len(b) >= target:
                break
            fits = len(a) + len(sentence) < limit and not (carry and b)
            if not a or fits or (not b and len(a) < limit and uniform() < 0.5):
                a = a + sentence
            else:
                b = b + sentence
        if carry and limit < 100_000 and len(a) > seq_len - 2:
            half = (seq_len - 3) // 2
            a, b = a[:half], a[half:] + b
        a = a[: seq_len - 2]
        b = b[: max(0, seq_len - len(a) - 3)]
        rows.append((a, b))
        later = [[t for t in sentence if t > (a + b)[-1]] for sentence in waiting]
        waiting = [sentence for sentence in later if sentence] if carry else []
        target = draw_target()

    for length in lengths:
        waiting.append([next(count) for _ in range(length)])
        while sum(map(len, waiting)) >= target:
            emit()
    while waiting:
        emit()
    return rows


def tokens_of(row: Row) -> tuple[list[int], list[int]]:
    first = [t for a, b in row.first for t in range(a, b)]
    return first, [t for a, b in row.second for t in range(a, b)]


# Mostly short lines, so that sums often meet a target exactly.
lines = st.lists(st.integers(1, 9) | st.integers(1, 90), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    lengths=lines,
    seq_len=st.integers(8, 64),
    seed=st.integers(0, 2**32),
    overflow=st.sampled_from(examples.OVERFLOW),
)
def test_rows_are_the_originals_to_the_token(lengths, seq_len, seed, overflow):
    """Catches any departure from the original's rules: targets, the coin, the order of the lines,
    trimming by the row and not by the target; and from what carry is said to change in them."""
    ours = cut(lengths, Plan(seq_len, "pair", overflow), often_small(seed))
    assert [tokens_of(r) for r in ours] == reference_rows(
        lengths, seq_len, often_small(seed), carry=overflow == "carry"
    )


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 200), max_size=40),
    seq_len=st.integers(8, 64),
    segments=st.sampled_from(examples.SEGMENTS),
    seed=st.integers(0, 2**32),
)
def test_carry_loses_no_token_and_keeps_their_order(lengths, seq_len, segments, seed):
    """Catches a token dropped, doubled or out of place where one row ends and the next begins."""
    rows = cut(lengths, Plan(seq_len, segments), random.Random(seed).random)
    found = [t for row in rows for part in tokens_of(row) for t in part]
    assert found == list(range(sum(lengths)))
    for row in rows:
        first, second = tokens_of(row)
        assert 1 <= len(first) + len(second) <= seq_len - (3 if second else 2)
        assert not (second and segments != "pair")


def test_cases_worked_by_hand():
    """Catches, each on its own, the rules that the random comparison could only catch together."""
    plan = Plan(16, "pair", "drop")
    # Target 16, half 6. Line 0 opens A; line 1 would make 8 >= 6, the coin takes it; A is then over
    # the half, lines 2 and 3 go to B, which has room for 16 - 8 - 3 = 5; line 4 is the next row.
    lengths = [4, 4, 4, 4, 4]
    draws = (NEVER_SHORT, PAIR, HEADS, NEVER_SHORT, PAIR)
    rows = [tokens_of(r) for r in cut(lengths, plan, scripted(*draws))]
    assert rows == [
        (list(range(8)), list(range(8, 13))),
        (list(range(16, 20)), []),
    ]
    # The same text carried on: the three tokens of line 3 open the next row, and line 4 follows.
    rows = [tokens_of(r) for r in cut(lengths, Plan(16), scripted(*draws, TAILS))]
    assert rows == [
        (list(range(8)), list(range(8, 13))),
        (list(range(13, 16)), list(range(16, 20))),
    ]
    # A single segment (0.05 < 0.1) takes 16 - 2 tokens.
    rows = [tokens_of(r) for r in cut([20], plan, scripted(NEVER_SHORT, 0.05))]
    assert rows == [(list(range(14)), [])]
    # A short target: 0.01 < 0.05, then 5 + int(0.3 * 12) = 8; two lines of 4 reach it.
    draws = (0.01, 0.3, PAIR, TAILS, NEVER_SHORT, PAIR, TAILS)
    rows = [tokens_of(r) for r in cut([4] * 4, plan, scripted(*draws))]
    assert rows == [(list(range(4)), list(range(4, 8))), (list(range(8, 12)), list(range(12, 16)))]


def test_an_early_line_may_still_join_the_first_segment_only_in_drop():
    """Catches the original's one departure from running text, kept in drop (line 2 still fits under
    half a row of 32 and joins A behind line 0), and its spreading to carry."""
    lengths, draws = [8, 10, 5, 12], (NEVER_SHORT, PAIR, TAILS)
    (row,) = cut(lengths, Plan(32, "pair", "drop"), scripted(*draws))
    assert tokens_of(row)[0] == [*range(8), *range(18, 23)]
    row = cut(lengths, Plan(32), scripted(*draws, NEVER_SHORT, PAIR))[0]
    assert tokens_of(row) == (list(range(8)), list(range(8, 29)))


def test_long_lines_still_give_pairs_when_carried():
    """Catches paragraphs longer than a row turning nearly all rows into single segments."""
    rows = cut([30_000], Plan(128), random.Random(0).random)
    single = np.mean([not row.second for row in rows])
    assert 0.06 < single < 0.14
    lost = cut([30_000], Plan(128, "pair", "drop"), random.Random(0).random)
    assert [tokens_of(row) for row in lost] == [(list(range(126)), [])]


@pytest.mark.parametrize("overflow", examples.OVERFLOW)
def test_shares_of_single_segments_and_short_targets(overflow):
    """Catches a wrong probability, and short targets drawn from another range."""
    uniform = random.Random(1).random
    lengths = [5 + int(uniform() * 40) for _ in range(60_000)]
    rows = cut(lengths, Plan(128, "pair", overflow), uniform)
    # About 11,000 rows: three standard deviations are 0.009 and 0.006.
    assert abs(np.mean([not row.second for row in rows]) - 0.1) < 0.012
    assert abs(np.mean([row.short for row in rows]) - 0.05 * 123 / 124) < 0.008
    short = [sum(map(len, tokens_of(row))) for row in rows if row.short]
    # Targets 5..127, each overshot by half a line.
    assert 60 < np.mean(short) < 90


def test_full_rows_are_full():
    """Catches rows cut at lines, where every place but a document's last row should be text."""
    rows = cut([7, 90, 3, 250], Plan(32, "full"), scripted())
    assert [b - a for row in rows for a, b in row.first] == [30] * 11 + [20]


def test_a_row_is_laid_out_field_by_field():
    """Catches segment ids off by one, a missing separator, padding that counts as text, and a word
    cut in two whose second half has no start."""
    tokens = np.arange(100, 120, dtype=np.uint16)
    starts = np.arange(20) % 2 == 1
    rows = [(0, Row([(1, 4)], [(4, 6)], False)), (10, Row([(0, 2), (5, 6)], [], False))]
    built = assemble(rows, tokens, starts, 9, SPECIAL, np.dtype("<u2"))
    assert built.dtype == np.uint16
    ids, types, docs, begins = built.transpose(1, 0, 2).tolist()
    assert record.FIELDS == ("ids", "types", "docs", "word_starts")
    assert ids[0] == [2, 101, 102, 103, 3, 104, 105, 3, 0]
    assert types[0] == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert docs[0] == [1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert begins[0] == [1, 1, 0, 1, 1, 1, 1, 1, 0]
    assert ids[1] == [2, 110, 111, 115, 3, 0, 0, 0, 0]
    assert types[1] == [0] * 9
    assert docs[1] == [1] * 5 + [0] * 4
    assert begins[1] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    nothing = assemble([], tokens, starts, 9, SPECIAL, np.dtype("<u2"))
    assert nothing.shape == (0, 4, 9)


def test_senseless_plans_are_refused():
    """Catches a typo that surfaces hours later, or not at all."""
    with pytest.raises(UserError, match="sequence length 7"):
        Plan(7)
    with pytest.raises(UserError, match="pair"):
        Plan(128, "pairs")
    with pytest.raises(UserError, match="carry"):
        Plan(128, "pair", "cary")
