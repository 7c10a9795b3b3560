"""The GPU's vocabulary head, interpreted, against the head in tiles."""

import numpy as np
import pytest

from electra_jax.ops.vocabulary import hopper as vocab_gpu
from electra_jax.ops.vocabulary.slots import HeadOptions

B, K, V, REAL = 9, 19, 320, 300


@pytest.mark.parametrize(
    "options, width",
    [
        (HeadOptions(vocab_size=REAL, tile=128), 64),
        (HeadOptions(vocab_size=REAL, temperature=2.0, disallow_correct=True, tile=128), 192),
    ],
    ids=["plain", "temperature, disallow_correct, embeddings in chunks"],
)
def test_kernels_equal_the_tiles(monkeypatch, same_as_tiles, options, width):
    """Catches a sample that differs, a likeliest id that is not the first of equals, ids beyond the
    vocabulary, a last tile or stretch that runs over the table's end, slots of the padding that reach the gradient,
    and the sums of one split, stretch, tile or chunk lost."""
    monkeypatch.setattr(vocab_gpu, "_SLOTS", 64)
    work = vocab_gpu.Work(32, 4, 2)
    for name in ("_NARROW", "_WIDE"):
        plan = vocab_gpu.Plan(work, 12, work, run=2, chunk=64)
        monkeypatch.setattr(vocab_gpu, name, plan)
    monkeypatch.setattr(vocab_gpu, "_STRETCH_BYTES", 128 * 192 * 4)
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(B, K, width))
    table, bias = 2 * draw.normal(size=(V, width)) / width**0.5, draw.normal(size=V)
    hidden[0], bias[[40, 45, 70, 250]] = 0, bias.max() + 1  # in one tile, in one split, in two
    same_as_tiles(vocab_gpu, options, hidden, table, bias)
