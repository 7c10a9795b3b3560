"""LayerNorm with residual or dropout in array functions; supports everything."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.kernel import Implementation, Operation
from electra_jax.ops.noise import Noise

LAYER_NORM_EPS = 1e-12  # tf.contrib.layers.layer_norm, used by the original


class Residual(NamedTuple):
    """The arrays of `api.residual_norm`; without dropout `noise` is None."""

    x_BxLxD: jax.Array
    h_BxLxD: jax.Array
    bias_D: jax.Array
    scale_D: jax.Array
    shift_D: jax.Array
    noise: Noise | None = None


class Normed(NamedTuple):
    """The arrays of `api.norm`; without dropout `noise` is None."""

    x_BxLxD: jax.Array
    scale_D: jax.Array
    shift_D: jax.Array
    noise: Noise | None = None


def residual_norm(inputs: Residual, dropout: float) -> tuple[jax.Array, jax.Array]:
    """`api.residual_norm`; rounds where nn.Dense, `noise.dropout` and nn.LayerNorm do, one after the other."""
    x_BxLxD, h_BxLxD, bias_D, scale_D, shift_D, noise = inputs
    h_BxLxD += bias_D.astype(h_BxLxD.dtype)
    sum_BxLxD = x_BxLxD + noise_ops.dropout(h_BxLxD, dropout, noise)
    y_BxLxD = layer_norm(sum_BxLxD, scale_D, shift_D, x_BxLxD.dtype)
    return y_BxLxD, y_BxLxD.astype(h_BxLxD.dtype)


def norm(inputs: Normed, dropout: float, dtype: jnp.dtype) -> jax.Array:
    """`api.norm`."""
    return noise_ops.dropout(layer_norm(*inputs[:3], dtype), dropout, inputs.noise)


def layer_norm(
    x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """LayerNorm in float32, returned in `dtype`, as `model.layers.layer_norm` computes it."""
    return _LAYER_NORM(x_BxLxD.astype(jnp.float32), scale_D, shift_D).astype(dtype)


def _plain(x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array) -> jax.Array:
    """The norm in float32, differentiated automatically, which keeps three arrays of x's size."""
    return _norm_and_saved(x_BxLxD, scale_D, shift_D)[0]


def _by_squares(x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array) -> jax.Array:
    """The norm whose variance is the mean square less the squared mean.

    A TPU's product before it adds both up as it writes, and its compiler does better without gradients by hand.
    """
    mean_BxLx1 = jnp.mean(x_BxLxD, axis=-1, keepdims=True)
    square_BxLx1 = jnp.mean(jnp.square(x_BxLxD), axis=-1, keepdims=True)
    variance_BxLx1 = jnp.maximum(0.0, square_BxLx1 - jnp.square(mean_BxLx1))
    return _scaled(x_BxLxD, mean_BxLx1, variance_BxLx1, scale_D, shift_D)[0]


def _norm_and_saved(
    x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    mean_BxLx1 = jnp.mean(x_BxLxD, axis=-1, keepdims=True)
    variance_BxLx1 = jnp.mean(jnp.square(x_BxLxD - mean_BxLx1), axis=-1, keepdims=True)
    return _scaled(x_BxLxD, mean_BxLx1, variance_BxLx1, scale_D, shift_D)


def _scaled(
    x_BxLxD: jax.Array,
    mean_BxLx1: jax.Array,
    variance_BxLx1: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """The norm, and what its gradients need: x without mean and deviation, 1 / deviation, scale; all in float32."""
    factor_BxLx1 = jax.lax.rsqrt(variance_BxLx1 + np.float32(LAYER_NORM_EPS))
    away_BxLxD = x_BxLxD - mean_BxLx1
    y_BxLxD = away_BxLxD * (factor_BxLx1 * scale_D) + shift_D
    return y_BxLxD, (away_BxLxD * factor_BxLx1, factor_BxLx1, scale_D)


def _gradients(
    saved: tuple[jax.Array, jax.Array, jax.Array], cotangent_BxLxD: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    standard_BxLxD, factor_BxLx1, scale_D = saved
    inner_BxLxD = cotangent_BxLxD * scale_D
    mean_BxLx1 = jnp.mean(inner_BxLxD, axis=-1, keepdims=True)
    along_BxLx1 = jnp.mean(inner_BxLxD * standard_BxLxD, axis=-1, keepdims=True)
    d_x_BxLxD = (inner_BxLxD - mean_BxLx1 - standard_BxLxD * along_BxLx1) * factor_BxLx1
    d_scale_D = jnp.sum(cotangent_BxLxD * standard_BxLxD, axis=(0, 1))
    return d_x_BxLxD, d_scale_D, jnp.sum(cotangent_BxLxD, axis=(0, 1))


# By hand, one array of x's size is kept for the backward pass.
_by_hand = jax.custom_vjp(_plain)
_by_hand.defvjp(_norm_and_saved, _gradients)

_LAYER_NORM = Operation(
    "layer_norm",
    Implementation(name="by_hand", runs_on="cpu", run=_by_hand),
    Implementation(name="by_squares", runs_on="tpu", run=_by_squares),
    Implementation(name="plain", run=_plain),
)
