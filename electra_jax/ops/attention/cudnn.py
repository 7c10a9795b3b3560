"""Self-attention by cuDNN, for GPUs that have no kernels here: bfloat16, without dropout."""

import jax
import jax.numpy as jnp

from electra_jax.ops.attention.mask import Mask
from electra_jax.ops.attention.plain import projections
from electra_jax.ops.attention.rotation import Rotation
from electra_jax.ops.noise import Noise


def run(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    mask: Mask,
    noise: Noise | None,
    rotation: Rotation | None,
    *,
    heads: int,
    dropout: float,
) -> jax.Array:
    """`api.self_attention` for the rows of one device; M = 3 x heads x channels."""
    del noise, dropout  # unsupported
    qkv = projections(qkv_BxLxM, bias_M, rotation, heads)
    out_BxLxHxC = _fused(*qkv, mask.visible()[:, None])
    return out_BxLxHxC.reshape(*mask.docs_BxL.shape, -1)


def supports(
    qkv_BxLxM: jax.ShapeDtypeStruct,
    bias_M: jax.ShapeDtypeStruct,
    mask: Mask,
    noise: Noise | None,
    rotation: Rotation | None,
    *,
    heads: int,
    dropout: float,
) -> str:
    """The reason why cuDNN does not support this on one device; empty where it does."""
    del bias_M, mask, noise, rotation  # any
    if dropout:
        return "attention dropout (model.attention_dropout=0 allows it)"
    if qkv_BxLxM.dtype != jnp.bfloat16:
        return f"{qkv_BxLxM.dtype} (model.dtype=bfloat16 allows it)"
    batch, length, triple = qkv_BxLxM.shape
    x = jax.ShapeDtypeStruct((batch, length, heads, triple // 3 // heads), qkv_BxLxM.dtype)
    visible = jax.ShapeDtypeStruct((batch, 1, length, length), jnp.bool_)
    # JAX knows what the installed cuDNN can do, and reports what it cannot by one of these errors.
    try:
        jax.eval_shape(_fused, x, x, x, visible)
    except (NotImplementedError, RuntimeError) as error:
        return f"{list(x.shape)}: {error}"
    return ""


def _fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
