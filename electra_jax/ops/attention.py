"""Scaled dot-product attention within documents, with dropout on the weights; by a platform's kernel if it has one."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import target
from electra_jax.ops.noise import Noise

MASKED = -1e9  # exp(MASKED - max) is exactly 0 in float32, as with the original's -10000


def self_attention(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    *,
    heads: int,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> jax.Array:
    """`attention` [B, L, D] of queries, keys and values side by side in [B, L, 3D], without their bias as yet.

    On the mesh of the program being traced (`jax.sharding.use_abstract_mesh`), a TPU takes the kernels of
    `attention_kernel.py` and a GPU cuDNN's, each device for its own rows. What they do not support, and every other
    platform, takes `attention`; then a line says so once. The bias comes along because a kernel has its gradient at
    hand, and adds it up for nothing.
    """
    rate = dropout if noise is not None else 0.0
    batch, length, triple = qkv_BxLxM.shape
    mesh = jax.sharding.get_abstract_mesh()
    kernel = KERNELS.get(target.platform() or "")
    version, name, why = _plain, "", ""
    if kernel is not None:
        name, version, obstacle = kernel
        shape = (batch // mesh.size, length, heads, triple // 3 // heads)
        why = obstacle(shape, qkv_BxLxM.dtype, rate)
        if batch % mesh.size:
            why = f"{batch} rows on {mesh.size} devices"
    if why:
        target.tell(f"attention without {name}'s kernel: it does not support {why}")
    version = functools.partial(_plain if why else version, heads=heads, dropout=rate)
    if kernel is not None and not why:
        rows = P(mesh.axis_names)
        version = jax.shard_map(
            version, in_specs=(rows, P(), rows, rows), out_specs=rows, check_vma=False
        )
    return version(qkv_BxLxM, bias_M, docs_BxL, noise if rate else None)


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
    token sees a pad. `window` limits the distance between query and key; `causal` hides later keys. In plain array
    functions, which keep [B, H, L, L] for the backward pass.
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


def _plain(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: Noise | None,
    heads: int,
    dropout: float,
) -> jax.Array:
    q_BxLxHxC, k_BxLxHxC, v_BxLxHxC = _split(qkv_BxLxM, bias_M, heads)
    out = attention(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, docs_BxL, dropout=dropout, noise=noise)
    return out.reshape(*docs_BxL.shape, -1)


def _split(qkv_BxLxM: jax.Array, bias_M: jax.Array, heads: int) -> list[jax.Array]:
    """Queries, keys and values [B, L, H, C], with their bias."""
    batch, length, _ = qkv_BxLxM.shape
    whole_BxLxM = qkv_BxLxM + bias_M.astype(qkv_BxLxM.dtype)
    return [x.reshape(batch, length, heads, -1) for x in jnp.split(whole_BxLxM, 3, axis=-1)]


def _tpu(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: Noise | None,
    heads: int,
    dropout: float,
) -> jax.Array:
    from electra_jax.ops import attention_kernel

    return attention_kernel.self_attention(qkv_BxLxM, bias_M, docs_BxL, noise, heads, dropout)


def _no_tpu(shape_BxLxHxC: tuple[int, int, int, int], dtype: jnp.dtype, rate: float) -> str:
    from electra_jax.ops import attention_kernel

    del rate
    return attention_kernel.obstacle(*shape_BxLxHxC, dtype)


def _cudnn(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: None,
    heads: int,
    dropout: float,
) -> jax.Array:
    del noise, dropout  # there is none
    q_BxLxHxC, k_BxLxHxC, v_BxLxHxC = _split(qkv_BxLxM, bias_M, heads)
    visible_Bx1xLxL = (docs_BxL[:, :, None] == docs_BxL[:, None, :])[:, None]
    out = _fused(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, visible_Bx1xLxL)
    return out.reshape(*docs_BxL.shape, -1)


def _fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")


def _no_cudnn(shape_BxLxHxC: tuple[int, int, int, int], dtype: jnp.dtype, rate: float) -> str:
    if rate:
        return "attention dropout (model.attention_dropout=0 allows it)"
    if dtype != jnp.bfloat16:
        return f"{dtype} (model.dtype=bfloat16 allows it)"
    batch, length, _, _ = shape_BxLxHxC
    x = jax.ShapeDtypeStruct(shape_BxLxHxC, dtype)
    mask = jax.ShapeDtypeStruct((batch, 1, length, length), jnp.bool_)
    try:  # JAX knows what the cuDNN that is there can do, and says it in these two ways
        jax.eval_shape(_fused, x, x, x, mask)
    except (NotImplementedError, RuntimeError) as error:
        return f"{list(shape_BxLxHxC)}: {error}"
    return ""


# Platform -> (whose, the version for one device's rows, what it does not support of such rows at this rate).
KERNELS: dict[str, tuple[str, Callable[..., jax.Array], Callable[..., str]]] = {
    "tpu": ("the TPU", _tpu, _no_tpu),
    "cuda": ("cuDNN", _cudnn, _no_cudnn),
    "gpu": ("cuDNN", _cudnn, _no_cudnn),
}
