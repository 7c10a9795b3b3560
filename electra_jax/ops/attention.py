"""Scaled dot-product attention within documents, with dropout on the weights."""

import jax
import jax.numpy as jnp

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise

MASKED = -1e9  # exp(MASKED - max) is exactly 0 in float32, as with the original's -10000


def attention(
    q_BxLxHxC: jax.Array,
    k_BxLxHxC: jax.Array,
    v_BxLxHxC: jax.Array,
    docs_BxL: jax.Array,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
    window: int | None = None,
    causal: bool = False,
) -> jax.Array:
    """Attention output [B, L, H, C] in v's dtype; scores, softmax and dropout in float32.

    A position sees the positions whose document number equals its own; 0 is padding, so pads see only pads and no
    token sees a pad. `window` limits the distance between query and key; `causal` hides later keys.
    """
    scale = q_BxLxHxC.shape[-1] ** -0.5
    scores_BxHxLxL = jnp.einsum(
        "blhc,bmhc->bhlm", q_BxLxHxC * scale, k_BxLxHxC, preferred_element_type=jnp.float32
    )
    visible_BxLxL = docs_BxL[:, :, None] == docs_BxL[:, None, :]
    if causal or window is not None:
        at_L = jnp.arange(docs_BxL.shape[1])
        distance_LxL = at_L[:, None] - at_L[None, :]
        if causal:
            visible_BxLxL &= (distance_LxL >= 0)[None]
        if window is not None:
            visible_BxLxL &= (jnp.abs(distance_LxL) <= window)[None]
    scores_BxHxLxL = jnp.where(visible_BxLxL[:, None], scores_BxHxLxL, MASKED)
    weights_BxHxLxL = jax.nn.softmax(scores_BxHxLxL, axis=-1)
    weights_BxHxLxL = noise_ops.dropout(weights_BxHxLxL, dropout, noise)
    return jnp.einsum("bhlm,bmhc->blhc", weights_BxHxLxL.astype(v_BxLxHxC.dtype), v_BxLxHxC)
