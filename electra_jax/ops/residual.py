"""LayerNorm with what surrounds it, a residual and dropout; by a platform's kernels if it has some."""

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import target
from electra_jax.ops.noise import Noise

LAYER_NORM_EPS = 1e-12  # tf.contrib.layers.layer_norm, used by the original


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
    """The residual stream x plus a dense layer's product h, to which its bias is still to be added, normalised.

    [B, L, D] in x's dtype for the stream, and in h's as the next product's operand; bias, scale and shift in float32.
    On the mesh of the program being traced (`jax.sharding.use_abstract_mesh`) an H100 or H200 takes the kernels of
    `gpu/residual.py`, each device for its own rows. What they do not support, and every other platform, takes plain
    array functions; then a line says so once.
    """
    rate = dropout if noise is not None else 0.0
    arrays = (x_BxLxD, h_BxLxD, bias_D, scale_D, shift_D, noise if rate else None)
    if not target.on_hopper():
        return _plain(*arrays, rate)
    from electra_jax.ops.gpu import residual as residual_gpu

    _, length, width = x_BxLxD.shape
    return target.by_kernel(
        "residuals",
        residual_gpu.residual_norm,
        _plain,
        lambda batch: residual_gpu.obstacle(length, width, x_BxLxD.dtype, h_BxLxD.dtype),
        arrays,
        (True, True, False, False, False, True),
        dropout=rate,
    )


def norm(
    x_BxLxD: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
    dtype: str,
) -> jax.Array:
    """dropout(LayerNorm(x)) [B, L, D] in `dtype`; scale and shift in float32.

    Like `residual_norm` by the kernels of `gpu/norm.py` or plain array functions.
    """
    rate = dropout if noise is not None else 0.0
    wanted = jnp.dtype(dtype)
    arrays = (x_BxLxD, scale_D, shift_D, noise if rate else None)
    if not target.on_hopper():
        return _plain_norm(*arrays, rate, wanted)
    from electra_jax.ops.gpu import norm as norm_gpu

    _, length, width = x_BxLxD.shape
    return target.by_kernel(
        "norms",
        norm_gpu.norm,
        _plain_norm,
        lambda batch: norm_gpu.obstacle(length, width, x_BxLxD.dtype, wanted),
        arrays,
        (True, False, False, True),
        dropout=rate,
        dtype=wanted,
    )


def _plain(
    x_BxLxD: jax.Array,
    h_BxLxD: jax.Array,
    bias_D: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
    noise: Noise | None,
    dropout: float,
) -> tuple[jax.Array, jax.Array]:
    """Rounds where nn.Dense, `noise.dropout` and nn.LayerNorm do, one after the other."""
    h_BxLxD += bias_D.astype(h_BxLxD.dtype)
    sum_BxLxD = x_BxLxD + noise_ops.dropout(h_BxLxD, dropout, noise)
    y_BxLxD = _layer_norm(sum_BxLxD, scale_D, shift_D, x_BxLxD.dtype)
    return y_BxLxD, y_BxLxD.astype(h_BxLxD.dtype)


def _plain_norm(
    x_BxLxD: jax.Array,
    scale_D: jax.Array,
    shift_D: jax.Array,
    noise: Noise | None,
    dropout: float,
    dtype: jnp.dtype,
) -> jax.Array:
    return noise_ops.dropout(_layer_norm(x_BxLxD, scale_D, shift_D, dtype), dropout, noise)


def _layer_norm(
    x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """As `layers.layer_norm` does it; on a CPU differentiated by hand. XLA's compiler for TPUs does better without."""
    arrays = (x_BxLxD.astype(jnp.float32), scale_D, shift_D)
    if target.platform() == "cpu":
        return _norm_by_hand(*arrays).astype(dtype)
    return _norm_and_saved(*arrays)[0].astype(dtype)


@jax.custom_vjp
def _norm_by_hand(x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array) -> jax.Array:
    """The norm in float32, of which one array of x's size is kept; automatic differentiation keeps three."""
    return _norm_and_saved(x_BxLxD, scale_D, shift_D)[0]


def _norm_and_saved(
    x_BxLxD: jax.Array, scale_D: jax.Array, shift_D: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """The norm, and what its gradients need: x without mean and deviation, 1 / deviation, scale; all in float32."""
    mean_BxLx1 = jnp.mean(x_BxLxD, axis=-1, keepdims=True)
    if target.platform() == "tpu":  # whose product before this adds both up as it writes
        square_BxLx1 = jnp.mean(jnp.square(x_BxLxD), axis=-1, keepdims=True)
        variance_BxLx1 = jnp.maximum(0.0, square_BxLx1 - jnp.square(mean_BxLx1))
    else:
        variance_BxLx1 = jnp.mean(jnp.square(x_BxLxD - mean_BxLx1), axis=-1, keepdims=True)
    factor_BxLx1 = jax.lax.rsqrt(variance_BxLx1 + np.float32(LAYER_NORM_EPS))
    away_BxLxD = x_BxLxD - mean_BxLx1
    y_BxLxD = away_BxLxD * (factor_BxLx1 * scale_D) + shift_D
    return y_BxLxD, (away_BxLxD * factor_BxLx1, factor_BxLx1, scale_D)


def _norm_gradients(
    saved: tuple[jax.Array, jax.Array, jax.Array], slope_BxLxD: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    standard_BxLxD, factor_BxLx1, scale_D = saved
    inner_BxLxD = slope_BxLxD * scale_D
    mean_BxLx1 = jnp.mean(inner_BxLxD, axis=-1, keepdims=True)
    along_BxLx1 = jnp.mean(inner_BxLxD * standard_BxLxD, axis=-1, keepdims=True)
    d_x_BxLxD = (inner_BxLxD - mean_BxLx1 - standard_BxLxD * along_BxLx1) * factor_BxLx1
    d_scale_D = jnp.sum(slope_BxLxD * standard_BxLxD, axis=(0, 1))
    return d_x_BxLxD, d_scale_D, jnp.sum(slope_BxLxD, axis=(0, 1))


_norm_by_hand.defvjp(_norm_and_saved, _norm_gradients)
