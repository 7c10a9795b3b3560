"""The GPU's vocabulary head, interpreted, against the head in tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gpu import vocabulary as vocab_gpu
from electra_jax.ops.vocab_tiles import HeadOptions, tiled_head

B, K, V, REAL = 9, 19, 320, 300


@pytest.mark.parametrize(
    "options, width",
    [
        (HeadOptions(REAL, 1.0, False, 128), 64),
        (HeadOptions(REAL, 2.0, True, 128), 192),
    ],
    ids=["plain", "temperature, disallow_correct, embeddings in chunks"],
)
def test_kernels_equal_the_tiles(monkeypatch, options, width):
    """Catches a sample that differs, a likeliest id that is not the first of equals, ids beyond the
    vocabulary, a last tile or stretch that runs over the table's end, slots of the padding that reach the gradient,
    and the sums of one split, stretch, tile or chunk lost."""
    monkeypatch.setattr(vocab_gpu, "_SLOTS", 64)
    work = vocab_gpu._Work(32, 4, 2)
    for name in ("_NARROW", "_WIDE"):
        plan = vocab_gpu._Plan(work, 12, work, run=2, chunk=64)
        monkeypatch.setattr(vocab_gpu, name, plan)
    monkeypatch.setattr(vocab_gpu, "_STRETCH_BYTES", 128 * 192 * 4)
    draw = np.random.default_rng(0)
    hidden, slope = draw.normal(size=(B, K, width)), draw.normal(size=(B, K))
    table, bias = 2 * draw.normal(size=(V, width)) / width**0.5, draw.normal(size=V)
    hidden[0], bias[[40, 45, 70, 250]] = 0, bias.max() + 1  # in one tile, in one split, in two
    targets = draw.integers(0, REAL, (B, K)).astype(np.int32)
    noise = noise_ops.for_rows(jax.random.key(9), jnp.arange(B) + 5)

    def run(head):
        def loss(*arrays):
            out = head(*arrays, targets, noise, options)
            return jnp.sum(out.loss * slope.astype(np.float32)), out

        arrays = [jnp.asarray(x, jnp.float32) for x in (hidden, table, bias)]
        grads, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
        return (*out, *grads)

    def kernel(*arguments):
        return vocab_gpu.kernel_head(*arguments, interpret=True)

    for found, expected in zip(run(kernel), run(tiled_head), strict=True):
        if found.dtype == jnp.int32:
            assert np.array_equal(found, expected)
        else:
            assert np.abs(found - expected).max() < 1e-5
