"""The exact (erf) GELU, alone or of a sum with a bias."""

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import gradient
from electra_jax.ops.barrier import apart
from electra_jax.ops.gelu.inputs import Inputs
from electra_jax.ops.kernel import Implementation, Operation, in_module

_ROOT_HALF = np.float32(0.5**0.5)
_DENSITY = np.float32((2 * np.pi) ** -0.5)  # of the standard normal distribution at 0


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, computed in float32 and returned in x's dtype.

    Differentiated by hand, because automatic differentiation keeps three arrays of x's size for the backward pass; and
    by erf, as PyTorch does, where `jax.nn.gelu` takes the more expensive erfc.
    """
    return _GELU(x)


def bias_gelu(h_BxLxF: jax.Array, bias_F: jax.Array) -> jax.Array:
    """gelu(h + bias) [B, L, F] in h's dtype; the bias is float32."""
    return _BIAS_GELU(Inputs(h_BxLxF, bias_F))


def _gradients(arguments: tuple[jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    (x,) = arguments
    # Apart, or the forward pass keeps erf, as large as x.
    wide = apart(x).astype(jnp.float32)
    derivative = _distribution(wide) + wide * jnp.exp(-0.5 * wide * wide) * _DENSITY
    return ((cotangent.astype(jnp.float32) * derivative).astype(x.dtype),)


@gradient.by_hand(_gradients)
def _by_hand(x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (wide * _distribution(wide)).astype(x.dtype)


def _distribution(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * _ROOT_HALF))


def _plain(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _plain_bias_gelu(inputs: Inputs) -> jax.Array:
    h_BxLxF, bias_F = inputs
    return gelu(h_BxLxF + bias_F.astype(h_BxLxF.dtype))


_GELU = Operation(
    "gelu", Implementation(name="by_hand", run=_by_hand), Implementation(name="plain", run=_plain)
)
_BIAS_GELU = Operation(
    "bias_gelu",
    in_module("gelu.hopper", runs_on="hopper"),
    Implementation(name="plain", run=_plain_bias_gelu),
    rows=("h_BxLxF",),
)
