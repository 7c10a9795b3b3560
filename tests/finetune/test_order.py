"""Batches by length: nothing seen twice or never, the same buckets for all seeds, little padding."""

import itertools

import numpy as np
import pytest

from electra_jax.finetune.order import (
    FILLER,
    Order,
    bucket_lengths,
    fixed,
    rounded,
    schedule,
    subset,
)

LENGTHS = np.minimum(np.random.default_rng(0).geometric(1 / 14, size=1003) + 2, 128)


def padded(lengths, buckets):
    return sum(next(b for b in buckets if b >= length) for length in lengths)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bucket_lengths_are_the_best_there_are(count):
    """Catches a search that settles for more padding than a brute-force search finds."""
    buckets = bucket_lengths(LENGTHS, count, 128)
    assert len(buckets) == count and all(b % 4 == 0 for b in buckets)
    edges = np.unique(rounded(LENGTHS))
    best = min(
        padded(LENGTHS, (*chosen, edges[-1]))
        for chosen in itertools.combinations(edges[:-1], count - 1)
    )
    assert padded(LENGTHS, buckets) == best


def test_a_length_is_there_only_where_it_is_worth_its_price():
    """Catches a compilation for a few tokens saved, and a price that is paid for the first length too."""
    for price in (0, 300, 1000, 3000):
        buckets = bucket_lengths(LENGTHS, 8, 128, price)
        fewer, more = (bucket_lengths(LENGTHS, len(buckets) + n, 128) for n in (-1, 1))
        saved = padded(LENGTHS, buckets) - padded(LENGTHS, more)
        assert saved <= price or len(buckets) == 8
        assert not fewer or padded(LENGTHS, fewer) - padded(LENGTHS, buckets) >= price
    assert len(bucket_lengths(LENGTHS, 8, 128, 10**6)) == 1


def test_lengths_are_on_one_grid():
    """Catches lengths that follow the data, for which no compiled program is found again, and a grid
    that pads a row by more than an eighth."""
    lengths = np.arange(1, 513)
    grid = np.unique(rounded(lengths))
    assert np.array_equal(rounded(grid), grid)
    assert set(bucket_lengths(LENGTHS, 5, 128)) <= set(grid)
    assert np.all(rounded(lengths) >= lengths)
    long = lengths[lengths > 32]
    assert np.all(rounded(long) - long < long / 8)
    assert len(grid) < 45


def test_buckets_end_at_what_the_model_takes():
    """Catches rows that are made longer than the position table."""
    assert bucket_lengths(np.array([5, 100]), 4, 100) == (8, 100)
    assert bucket_lengths(np.array([5]), 4, 128) == (8,)


def test_every_example_once_an_epoch_and_every_seed_in_the_same_buckets():
    """Catches examples lost or doubled where a bucket's rest moves on, and rows too long for their bucket."""
    order = Order(LENGTHS, bucket_lengths(LENGTHS, 4, 128), 32, 0)
    for epoch, seed in ((0, 1), (0, 2), (3, 1)):
        steps = range(epoch * order.epoch_steps, (epoch + 1) * order.epoch_steps)
        rows = [order.rows(step, seed) for step in steps]
        seen = np.concatenate(rows)
        assert np.array_equal(np.sort(seen[seen >= 0]), np.arange(len(LENGTHS)))
        assert np.sum(seen == FILLER) == len(seen) - len(LENGTHS)
        for step, found in zip(steps, rows, strict=True):
            assert LENGTHS[found[found >= 0]].max() <= order.bucket(step)
    first, second = (order.rows(0, seed) for seed in (1, 2))
    assert set(first) != set(second)
    assert not np.array_equal(order.rows(0, 1), order.rows(order.epoch_steps, 1))


def test_a_step_depends_on_nothing_but_its_number():
    """Catches an order that must be walked from its beginning, which a resumed run is not."""
    buckets = bucket_lengths(LENGTHS, 4, 128)
    walked, jumped = (Order(LENGTHS, buckets, 32, 0) for _ in range(2))
    for step in range(40):
        last = walked.rows(step, 5)
    assert np.array_equal(jumped.rows(39, 5), last)


def test_tasks_share_the_steps_by_their_size_to_a_power():
    """Catches shares by plain size, and a task whose batches do not follow one another."""
    big, small = (Order(LENGTHS[:n], (128,), 10, 0) for n in (1000, 100))
    made = schedule([big, small], [1, 1], 0.75, 0)
    counts = np.bincount(made.task_of_step)
    assert counts[0] / counts[1] == pytest.approx(10**0.75, rel=0.1)
    assert made.steps == counts.sum() and made.evaluations[-1] == made.steps
    for task in (0, 1):
        assert np.array_equal(made.step_of_task[made.task_of_step == task], range(counts[task]))


def test_one_task_is_scored_after_every_epoch():
    """Catches epochs that end a step early or late, and an end without a score."""
    order = Order(LENGTHS, (128,), 32, 0)
    assert order.epoch_steps == 32
    assert schedule([order], [2.5], 0.75, 0).evaluations == (32, 64, 80)


def test_evaluation_sees_every_example_once():
    """Catches examples left out of the last batch of an evaluation."""
    batches = fixed(LENGTHS, (16, 64, 128), 50)
    seen = np.concatenate([rows for _, rows in batches])
    assert np.array_equal(np.sort(seen[seen >= 0]), np.arange(len(LENGTHS)))
    assert all(LENGTHS[rows[rows >= 0]].max() <= length for length, rows in batches)


def test_a_subset_is_drawn_by_seed():
    """Catches few-shot training on the first lines of a file that is sorted by label."""
    assert len(set(subset(1000, 20, 0)) & set(subset(1000, 20, 1))) < 10
    assert np.array_equal(subset(1000, 20, 0), subset(1000, 20, 0))
    assert np.array_equal(subset(5, 20, 0), range(5))
