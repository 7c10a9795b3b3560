"""The TPU's vocabulary head, interpreted, against the head in tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.tpu import vocabulary as vocab_kernel
from electra_jax.ops.vocab_tiles import HeadOptions, tiled_head

B, K, E, V, REAL = 9, 19, 128, 320, 300


@pytest.mark.parametrize(
    "options",
    [HeadOptions(REAL, 1.0, False, 128), HeadOptions(REAL, 2.0, True, 128)],
    ids=["plain", "temperature and disallow_correct"],
)
def test_kernels_equal_the_tiles(monkeypatch, options):
    """Catches a sample that differs, ids beyond the vocabulary, a last tile that runs over the table's end, slots of
    the padding that reach the gradient, and sums of one tile or part of the slots lost."""
    monkeypatch.setattr(vocab_kernel, "_TILE", 128)
    monkeypatch.setattr(vocab_kernel, "_SLOTS", 128)
    draw = np.random.default_rng(0)
    hidden, slope = draw.normal(size=(B, K, E)), draw.normal(size=(B, K))
    table, bias = 0.3 * draw.normal(size=(V, E)), draw.normal(size=V)
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
        return vocab_kernel.kernel_head(*arguments, interpret=True)

    for found, expected in zip(run(kernel), run(tiled_head), strict=True):
        if found.dtype == jnp.int32:
            assert np.array_equal(found, expected)
        else:
            assert np.abs(found - expected).max() < 1e-5
