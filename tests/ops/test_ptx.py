"""The short functions of the GPU's kernels, interpreted, against SciPy's."""

import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from electra_jax.ops import ptx

X = np.concatenate([np.linspace(-14, 0, 20001), [-1e30, -1e5, -1e-20]]).astype(np.float32)


def test_distribution():
    """Catches a wrong digit of the polynomial, and NaN far out."""
    actual = np.asarray(ptx.normal_below(jnp.asarray(X), True), np.float64)
    assert np.abs(actual - special.ndtr(X.astype(np.float64))).max() <= 2e-7


def test_density():
    """Catches a constant of another base than 2."""
    actual = np.asarray(ptx.normal_density(jnp.asarray(X), True), np.float64)
    assert np.abs(actual - stats.norm.pdf(X.astype(np.float64))).max() <= 2e-7


def test_fma_takes_numbers_and_what_broadcasts():
    """Catches operands of unlike shapes, which the instruction does not take."""
    a = jnp.arange(6.0).reshape(2, 3)
    row = jnp.arange(3.0)[None]
    assert (ptx.fma(a, 2.0, row, True) == a * 2 + row).all()
    assert (ptx.fma(a, row, -1.0, True) == a * row - 1).all()
