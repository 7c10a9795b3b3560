"""Self-attention by cuDNN, for GPUs that have no kernels here: bfloat16, without dropout."""

import jax
import jax.numpy as jnp

from electra_jax.ops.attention.inputs import Inputs
from electra_jax.ops.attention.plain import projections


def run(inputs: Inputs, heads: int, dropout: float) -> jax.Array:
    """`api.self_attention` for the rows of one device."""
    del dropout  # unsupported
    out = _fused(*projections(inputs, heads), inputs.mask.visible()[:, None])
    return out.reshape(*out.shape[:2], -1)


def supports(inputs: Inputs, heads: int, dropout: float) -> str:
    """The reason why cuDNN does not support this on one device; empty where it does."""
    dtype = inputs.qkv_BxLxM.dtype
    if dropout:
        return "attention dropout (model.attention_dropout=0 allows it)"
    if dtype != jnp.bfloat16:
        return f"{dtype} (model.dtype=bfloat16 allows it)"
    batch, length, channels = inputs.shape(heads)
    x = jax.ShapeDtypeStruct((batch, length, heads, channels), dtype)
    visible = jax.ShapeDtypeStruct((batch, 1, length, length), jnp.bool_)
    # JAX knows what the installed cuDNN can do, and reports what it cannot by one of these errors.
    try:
        jax.eval_shape(_fused, x, x, x, visible)
    except (NotImplementedError, RuntimeError) as error:
        return f"{list(x.shape)}: {error}"
    return ""


def _fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
