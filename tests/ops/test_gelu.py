"""The GELU against its definition, and what it keeps for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from electra_jax.ops.gelu import gelu

X = np.concatenate([np.linspace(-12, 12, 2001), [-40, 40, 0, 1e-20]]).astype(np.float32)


def test_values_and_slopes_by_definition():
    """Catches the tanh approximation, a derivative of it, and NaN far out, where x * exp(-x^2 / 2) is 0."""
    wide = X.astype(np.float64)
    value, slope = jax.vmap(jax.value_and_grad(gelu))(jnp.asarray(X))
    assert np.abs(value - wide * special.ndtr(wide)).max() < 2e-6
    assert np.abs(slope - (special.ndtr(wide) + wide * stats.norm.pdf(wide))).max() < 1e-6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_only_the_argument_is_kept(dtype):
    """Catches intermediate arrays kept for the backward pass, and a dtype that changes on the way."""
    x = jnp.asarray(X, dtype)
    value, back = jax.vjp(gelu, x)
    kept = [leaf for leaf in jax.tree.leaves(back) if leaf.size == x.size]
    assert len(kept) == 1 and kept[0].dtype == value.dtype == dtype
    assert back(value)[0].dtype == dtype
