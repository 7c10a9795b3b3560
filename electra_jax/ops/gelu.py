"""The exact (erf) GELU with a derivative that needs its argument alone."""

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import gradient, target

_ROOT_HALF = np.float32(0.5**0.5)
_DENSITY = np.float32((2 * np.pi) ** -0.5)  # of the standard normal distribution at 0


def _gradients(arguments: tuple[jax.Array], slope: jax.Array) -> tuple[jax.Array]:
    (x,) = arguments
    wide = target.apart(x).astype(jnp.float32)  # or the forward pass keeps erf, as large as x
    steepness = _distribution(wide) + wide * jnp.exp(-0.5 * wide * wide) * _DENSITY
    return ((slope.astype(jnp.float32) * steepness).astype(x.dtype),)


@gradient.by_hand(_gradients)
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, computed in float32 and returned in x's dtype.

    Differentiated by hand, because automatic differentiation keeps three arrays of x's size for the backward pass; and
    by erf, as PyTorch does, where `jax.nn.gelu` takes the dearer erfc.
    """
    wide = x.astype(jnp.float32)
    return (wide * _distribution(wide)).astype(x.dtype)


def _distribution(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * _ROOT_HALF))
