"""The exact (erf) GELU, alone, of a sum with a bias, or times a gate."""

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


def geglu(up_BxLxF: jax.Array, gate_BxLxF: jax.Array) -> jax.Array:
    """gelu(up) x gate [B, L, F], computed in float32 and returned in their dtype (Shazeer, arXiv:2002.05202).

    Differentiated by hand: the backward pass keeps these two arrays and no third.
    """
    return _GEGLU(up_BxLxF, gate_BxLxF)


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


def _geglu_gradients(
    arguments: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Apart, or the forward pass keeps what both share: erf, or the product.
    up, gate, wide = (apart(x).astype(jnp.float32) for x in (*arguments, cotangent))
    share = _distribution(up)
    derivative = share + up * jnp.exp(-0.5 * up * up) * _DENSITY
    d_up, d_gate = wide * gate * derivative, wide * up * share
    return d_up.astype(arguments[0].dtype), d_gate.astype(arguments[1].dtype)


def _plain_geglu(up: jax.Array, gate: jax.Array) -> jax.Array:
    wide = up.astype(jnp.float32)
    return (wide * _distribution(wide) * gate.astype(jnp.float32)).astype(up.dtype)


_geglu_by_hand = gradient.by_hand(_geglu_gradients)(_plain_geglu)


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
_GEGLU = Operation(
    "geglu",
    Implementation(name="by_hand", run=_geglu_by_hand),
    Implementation(name="plain", run=_plain_geglu),
)
