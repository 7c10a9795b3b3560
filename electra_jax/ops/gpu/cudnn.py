"""Self-attention by cuDNN, for GPUs that have no kernels here: bfloat16, without dropout."""

import jax
import jax.numpy as jnp

from electra_jax.ops.attention import split


def self_attention(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: None,
    heads: int,
    dropout: float,
) -> jax.Array:
    """`attention.self_attention` for the rows of one device; M = 3 x heads x channels."""
    del noise, dropout  # there is none
    q_BxLxHxC, k_BxLxHxC, v_BxLxHxC = split(qkv_BxLxM, bias_M, heads)
    visible_Bx1xLxL = (docs_BxL[:, :, None] == docs_BxL[:, None, :])[:, None]
    out_BxLxHxC = _fused(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, visible_Bx1xLxL)
    return out_BxLxHxC.reshape(*docs_BxL.shape, -1)


def obstacle(
    batch: int, length: int, heads: int, channels: int, dtype: jnp.dtype, dropout: float
) -> str:
    """What of rows of this shape, those of one device, cuDNN does not support; empty where it does."""
    if dropout:
        return "attention dropout (model.attention_dropout=0 allows it)"
    if dtype != jnp.bfloat16:
        return f"{dtype} (model.dtype=bfloat16 allows it)"
    x = jax.ShapeDtypeStruct((batch, length, heads, channels), dtype)
    mask = jax.ShapeDtypeStruct((batch, 1, length, length), jnp.bool_)
    try:  # JAX knows what the cuDNN that is there can do, and says it in these two ways
        jax.eval_shape(_fused, x, x, x, mask)
    except (NotImplementedError, RuntimeError) as error:
        return f"{[batch, length, heads, channels]}: {error}"
    return ""


def _fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
