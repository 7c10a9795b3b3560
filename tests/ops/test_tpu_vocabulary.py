"""The TPU's vocabulary head, interpreted, against the head in tiles."""

import numpy as np
import pytest

from electra_jax.ops.vocabulary import tpu as vocab_kernel
from electra_jax.ops.vocabulary.slots import HeadOptions

B, K, E, V, REAL = 9, 19, 128, 320, 300


@pytest.mark.parametrize(
    "options",
    [
        HeadOptions(vocab_size=REAL, tile=128),
        HeadOptions(vocab_size=REAL, temperature=2.0, disallow_correct=True, tile=128),
    ],
    ids=["plain", "temperature and disallow_correct"],
)
def test_kernels_equal_the_tiles(monkeypatch, same_as_tiles, options):
    """Catches a sample that differs, ids beyond the vocabulary, a last tile that runs over the table's end, slots of
    the padding that reach the gradient, and sums of one tile or part of the slots lost."""
    monkeypatch.setattr(vocab_kernel, "_TILE", 128)
    monkeypatch.setattr(vocab_kernel, "_SLOTS", 128)
    draw = np.random.default_rng(0)
    hidden, table = draw.normal(size=(B, K, E)), 0.3 * draw.normal(size=(V, E))
    same_as_tiles(vocab_kernel, options, hidden, table, draw.normal(size=V))
