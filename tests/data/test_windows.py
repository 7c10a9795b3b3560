"""The order of rows of a folder whose shards are mixed a window at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data.windows import Windows


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    window=st.integers(1, 15),
    batch=st.integers(1, 90),
    seed=st.integers(-(2**40), 2**70),
)
def test_every_epoch_holds_each_row_once(rows, window, batch, seed):
    """Catches rows left out or read twice: at a window's edge, in shards of unequal size, in a shorter last window."""
    order, n = Windows(np.array(rows), window, seed), sum(rows)
    steps = -(-3 * n // batch)
    seen = np.concatenate([order.rows(s, batch) for s in range(steps)])[: 3 * n]
    assert seen.dtype == np.int64
    for epoch in seen.reshape(3, n):
        assert np.array_equal(np.sort(epoch), np.arange(n))


def test_a_number_depends_only_on_its_place():
    """Catches an order that a resume, another batch or rows that an earlier phase `read` would change."""
    rows = np.array([30, 7, 19, 50, 1, 22])
    whole = Windows(rows, 2, 5).rows(0, 400)
    for step in (9, 0, 3, 12):  # in any order: nothing is remembered
        assert np.array_equal(
            Windows(rows, 2, 5).rows(step, 13), whole[step * 13 : (step + 1) * 13]
        )
    assert np.array_equal(Windows(rows, 2, 5).rows(2, 20, read=57), whole[97:117])


def test_a_window_has_rows_of_its_shards_alone():
    """Catches an order that needs every shard at once, and one that reads a shard from its beginning to its end."""
    rows = np.full(20, 100)
    order = Windows(rows, 4, 0)
    shards = order.rows(0, 4000).reshape(10, 400) // 100
    held = [set(window.tolist()) for window in shards]
    assert all(len(found) == 4 for found in held)
    assert set().union(*held[:5]) == set().union(*held[5:]) == set(range(20))
    assert held[:5] != held[5:]  # another epoch mixes other shards
    # The first quarter of a window has rows of all four in about equal parts.
    assert all(np.bincount(window[:100]).max() < 50 for window in shards)
    assert order.most_rows == 400


def test_ten_terabytes_need_memory_for_shards_only():
    """Catches an order that holds a number for every row: here they are 20 thousand million."""
    order = Windows(np.full(40_000, 500_000), 8, 1)
    rows = order.rows(10**7, 256)
    assert rows.min() >= 0 and rows.max() < 2 * 10**10
    assert len(np.unique(rows // 500_000)) <= 8


def test_another_seed_has_another_order():
    """Catches a seed that moves only the shards or only the rows."""
    one, other = (Windows(np.array([1000]), 1, seed).rows(0, 1000) for seed in (0, 1))
    assert not np.array_equal(one, other)
    one, other = (Windows(np.full(100, 1), 1, seed).rows(0, 100) for seed in (0, 1))
    assert not np.array_equal(one, other)
    with pytest.raises(ValueError):
        Windows(np.array([5]), 0, 0)
