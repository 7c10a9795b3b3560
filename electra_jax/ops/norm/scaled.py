"""LayerNorm with a scale and no shift, as pre-norm encoders have it (ModernBERT: eps 1e-5)."""

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops.kernel import Implementation, Operation

SCALE_NORM_EPS = 1e-5  # norm_eps of ModernBertConfig


def scale_norm(x_BxLxD: jax.Array, scale_D: jax.Array, *, dtype: str) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) x scale over the last axis, computed in float32, returned in `dtype`."""
    return _SCALE_NORM(x_BxLxD.astype(jnp.float32), scale_D).astype(dtype)


def _plain(x_BxLxD: jax.Array, scale_D: jax.Array) -> jax.Array:
    return _norm_and_saved(x_BxLxD, scale_D)[0]


_Saved = tuple[jax.Array, jax.Array, jax.Array]


def _norm_and_saved(x_BxLxD: jax.Array, scale_D: jax.Array) -> tuple[jax.Array, _Saved]:
    """The norm; and x without mean and deviation, 1 / deviation, scale: what its gradients need."""
    away_BxLxD = x_BxLxD - jnp.mean(x_BxLxD, axis=-1, keepdims=True)
    variance_BxLx1 = jnp.mean(jnp.square(away_BxLxD), axis=-1, keepdims=True)
    factor_BxLx1 = jax.lax.rsqrt(variance_BxLx1 + np.float32(SCALE_NORM_EPS))
    standard_BxLxD = away_BxLxD * factor_BxLx1
    return standard_BxLxD * scale_D, (standard_BxLxD, factor_BxLx1, scale_D)


def _gradients(saved: _Saved, cotangent_BxLxD: jax.Array) -> tuple[jax.Array, jax.Array]:
    standard_BxLxD, factor_BxLx1, scale_D = saved
    inner_BxLxD = cotangent_BxLxD * scale_D
    mean_BxLx1 = jnp.mean(inner_BxLxD, axis=-1, keepdims=True)
    along_BxLx1 = jnp.mean(inner_BxLxD * standard_BxLxD, axis=-1, keepdims=True)
    d_x_BxLxD = (inner_BxLxD - mean_BxLx1 - standard_BxLxD * along_BxLx1) * factor_BxLx1
    outer = tuple(range(cotangent_BxLxD.ndim - 1))
    return d_x_BxLxD, jnp.sum(cotangent_BxLxD * standard_BxLxD, axis=outer)


# By hand, one array of x's size is kept for the backward pass.
_by_hand = jax.custom_vjp(_plain)
_by_hand.defvjp(_norm_and_saved, _gradients)

_SCALE_NORM = Operation(
    "scale_norm",
    Implementation(name="by_hand", runs_on="cpu", run=_by_hand),
    Implementation(name="plain", run=_plain),
)
