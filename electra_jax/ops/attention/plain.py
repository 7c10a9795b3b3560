"""Self-attention in array functions, which keep [B, H, L, L] for the backward pass; supports everything."""

import functools

import jax
import jax.numpy as jnp

from electra_jax.ops import gradient
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention.inputs import Inputs, Mask
from electra_jax.ops.kernel import Implementation, Operation
from electra_jax.ops.noise import Noise

MASKED = -1e9  # exp(MASKED - max) is exactly 0 in float32, as with the original's -10000


def run(inputs: Inputs, heads: int, dropout: float) -> jax.Array:
    """`api.self_attention`."""
    q_BxLxHxC, k_BxLxHxC, v_BxLxHxC = projections(inputs, heads)
    out = attention(
        q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, inputs.mask, dropout=dropout, noise=inputs.noise
    )
    return out.reshape(*out.shape[:2], -1)


def attention(
    q_BxLxHxC: jax.Array,
    k_BxLxHxC: jax.Array,
    v_BxLxHxC: jax.Array,
    mask: Mask,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> jax.Array:
    """Attention output [B, L, H, C] in v's dtype; scores, softmax and dropout in float32."""
    scale = q_BxLxHxC.shape[-1] ** -0.5
    scores_BxHxLxL = _SCORES(q_BxLxHxC * scale, k_BxLxHxC)
    scores_BxHxLxL = jnp.where(mask.visible()[:, None], scores_BxHxLxL, MASKED)
    weights_BxHxLxL = jax.nn.softmax(scores_BxHxLxL, axis=-1)
    weights_BxHxLxL = noise_ops.dropout(weights_BxHxLxL, dropout, noise)
    return jnp.einsum("bhlm,bmhc->blhc", weights_BxHxLxL.astype(v_BxLxHxC.dtype), v_BxLxHxC)


def _gradients_of_scores(
    arguments: tuple[jax.Array, jax.Array], cotangent_BxHxLxM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The keys' gradient is queries by cotangents: by default cotangents come first, and a CPU would turn [L, M]."""
    q_BxLxHxC, k_BxMxHxC = arguments
    wide = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    d_q_BxHxLxC = wide(cotangent_BxHxLxM, k_BxMxHxC, (((3,), (1,)), ((0, 1), (0, 2))))
    d_k_BxHxCxM = wide(q_BxLxHxC, cotangent_BxHxLxM, (((1,), (2,)), ((0, 2), (0, 1))))
    return (
        d_q_BxHxLxC.transpose(0, 2, 1, 3).astype(q_BxLxHxC.dtype),
        d_k_BxHxCxM.transpose(0, 3, 1, 2).astype(k_BxMxHxC.dtype),
    )


def _scores(q_BxLxHxC: jax.Array, k_BxMxHxC: jax.Array) -> jax.Array:
    """Products of queries and keys [B, H, L, M] in float32."""
    return jnp.einsum("blhc,bmhc->bhlm", q_BxLxHxC, k_BxMxHxC, preferred_element_type=jnp.float32)


_SCORES = Operation(
    "scores",
    Implementation(name="by_hand", run=gradient.by_hand(_gradients_of_scores)(_scores)),
    Implementation(name="plain", run=_scores),
)


def projections(inputs: Inputs, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values [B, L, H, C] with their bias, queries and keys turned by the rotation."""
    batch, length, channels = inputs.shape(heads)
    whole_BxLxM = inputs.qkv_BxLxM
    if inputs.bias_M is not None:
        whole_BxLxM += inputs.bias_M.astype(whole_BxLxM.dtype)
    q, k, v = (
        x.reshape(batch, length, heads, channels) for x in jnp.split(whole_BxLxM, 3, axis=-1)
    )
    turn = inputs.rotation.turn if inputs.rotation is not None else lambda x: x
    return turn(q), turn(k), v
