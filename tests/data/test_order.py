"""The order of rows: complete epochs, fresh permutations, constant-time seek."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.data import order


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 700), batch=st.integers(1, 300), seed=st.integers(-(2**40), 2**70))
def test_every_epoch_holds_each_row_once(n, batch, seed):
    """Catches a map that is no bijection (cycle walking that stops early) and an epoch taken once
    per batch.
    """
    steps = -(-3 * n // batch)
    seen = np.concatenate([order.rows(s, batch, n, seed) for s in range(steps)])[: 3 * n]
    assert seen.dtype == np.int64
    for epoch in seen.reshape(3, n):
        assert np.array_equal(np.sort(epoch), np.arange(n))


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 10**9), batch=st.integers(1, 64), n=st.integers(1, 10**9))
def test_a_number_depends_only_on_its_place(step, batch, n):
    """Catches an order that depends on the batch size: the same places in single steps give the
    same rows.
    """
    whole = order.rows(step, batch, n, seed=7)
    assert whole[-1] == order.rows((step + 1) * batch - 1, 1, n, seed=7)[0]
    assert whole[0] == order.rows(step * batch, 1, n, seed=7)[0]


def test_epochs_and_seeds_differ():
    """Catches a key that leaves out the epoch or the seed."""
    n = 1000
    orders = [order.rows(e, n, n, seed) for e in (0, 1, 2) for seed in (0, 1, -1)]
    for i, a in enumerate(orders):
        for b in orders[i + 1 :]:
            # Two independent permutations agree at one place on average.
            assert (a == b).sum() < 10


def test_places_are_spread_evenly():
    """Catches a weak round function: over many epochs each row visits each tenth of the epoch
    equally often.
    """
    n, epochs = 100, 2000
    seen = order.rows(0, n * epochs, n, seed=3).reshape(epochs, n)
    tenth = np.argsort(seen, axis=1) // 10
    counts = np.stack([(tenth == t).sum(0) for t in range(10)])
    chi2 = ((counts - epochs / 10) ** 2 / (epochs / 10)).sum()
    # About 900 degrees of freedom: mean 900, standard deviation 42.
    assert 700 < chi2 < 1100
    # Neighbours do not stay neighbours (a permutation of the places alone would keep this at 0.02).
    assert (np.abs(np.diff(seen, axis=1)) == 1).mean() < 0.03


def test_order_is_frozen():
    """Catches a change of the permutation: it would silently change what a resumed run reads."""
    frozen = [968, 233, 836, 123, 179, 943, 739, 82]
    assert order.rows(5, 8, 1000, seed=42).tolist() == frozen


def test_a_seek_asks_for_its_own_rows_only(monkeypatch):
    """Catches a seek that walks: step a billion of a huge corpus permutes one batch of numbers, not all before it."""
    asked, permute = [], order.permute
    monkeypatch.setattr(
        order, "permute", lambda index, *rest: (asked.append(len(index)), permute(index, *rest))[1]
    )
    numbers = order.rows(10**9, 4096, 40_000_000, seed=0)
    assert asked == [4096]
    assert len(np.unique(numbers)) == 4096


def test_senseless_arguments_are_refused():
    """Catches an endless loop or an empty batch for an empty corpus."""
    with pytest.raises(ValueError, match="n=0"):
        order.rows(0, 8, 0, seed=0)
