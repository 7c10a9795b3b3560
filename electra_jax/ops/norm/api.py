"""LayerNorm after a residual with dropout, and before dropout: the seams, and which implementations there are."""

import jax
import jax.numpy as jnp

from electra_jax.ops.kernel import Implementation, Operation, in_module
from electra_jax.ops.noise import Noise
from electra_jax.ops.norm import plain

_RESIDUAL_NORM = Operation(
    "residual_norm",
    in_module("norm.hopper_residual", runs_on="hopper"),
    Implementation(name="plain", run=plain.residual_norm),
    rows=("x_BxLxD", "h_BxLxD", "noise"),
)
_NORM = Operation(
    "norm",
    in_module("norm.hopper", runs_on="hopper"),
    Implementation(name="plain", run=plain.norm),
    rows=("x_BxLxD", "noise"),
)


def residual_norm(
    x_BxLxD: jax.Array,
    h_BxLxD: jax.Array,
    bias_D: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> tuple[jax.Array, jax.Array]:
    """LayerNorm(x + dropout(h + bias)): the residual stream x plus a dense layer's product h.

    [B, L, D] in x's dtype for the stream, and in h's as the next product's operand; bias, scale and shift in float32.
    Dropout needs `noise`.
    """
    rate = dropout if noise is not None else 0.0
    inputs = (x_BxLxD, h_BxLxD, bias_D, scale_D, shift_D, noise if rate else None)
    return _RESIDUAL_NORM(plain.Residual(*inputs), dropout=rate)


def norm(
    x_BxLxD: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
    dtype: str,
) -> jax.Array:
    """dropout(LayerNorm(x)) [B, L, D] in `dtype`; scale and shift in float32. Dropout needs `noise`."""
    rate = dropout if noise is not None else 0.0
    inputs = plain.Normed(x_BxLxD, scale_D, shift_D, noise if rate else None)
    return _NORM(inputs, dropout=rate, dtype=jnp.dtype(dtype))
