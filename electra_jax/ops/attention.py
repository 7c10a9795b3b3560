"""Scaled dot-product attention within documents, with dropout on the weights; by a platform's kernel if it has one."""

import functools
from types import ModuleType

import jax
import jax.numpy as jnp

from electra_jax.ops import gradient, target
from electra_jax.ops import noise as noise_ops
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
    `tpu/attention.py`, an H100 or H200 those of `gpu/attention.py` and another GPU cuDNN's, each device for its own
    rows. What they do not support, and every other platform, takes `attention`; then a line says so once. The bias
    comes along because a kernel has its gradient at hand, and adds it up for nothing.
    """
    rate = dropout if noise is not None else 0.0
    arrays = (qkv_BxLxM, bias_M, docs_BxL, noise if rate else None)
    kernels = _kernels()
    if kernels is None:
        return _plain(*arrays, heads, rate)
    _, length, triple = qkv_BxLxM.shape
    return target.by_kernel(
        "attention",
        kernels.self_attention,
        _plain,
        lambda batch: kernels.obstacle(
            batch, length, heads, triple // 3 // heads, qkv_BxLxM.dtype, rate
        ),
        arrays,
        (True, False, True, True),
        heads=heads,
        dropout=rate,
    )


def _kernels() -> ModuleType | None:
    """The kernels of the devices that the program being traced will run on."""
    if target.platform() == "tpu":
        from electra_jax.ops.tpu import attention as on_tpu

        return on_tpu
    if target.on_hopper():
        from electra_jax.ops.gpu import attention as on_hopper

        return on_hopper
    if target.platform() == "gpu":
        from electra_jax.ops.gpu import cudnn

        return cudnn
    return None


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
    scores_BxHxLxL = _scores(q_BxLxHxC * scale, k_BxLxHxC)
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


def _gradients_of_scores(
    arguments: tuple[jax.Array, jax.Array], slope_BxHxLxM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The keys' gradient as queries by slopes: by default slopes come first, and a CPU would turn [L, M] for that."""
    q_BxLxHxC, k_BxMxHxC = arguments
    wide = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    d_q_BxHxLxC = wide(slope_BxHxLxM, k_BxMxHxC, (((3,), (1,)), ((0, 1), (0, 2))))
    d_k_BxHxCxM = wide(q_BxLxHxC, slope_BxHxLxM, (((1,), (2,)), ((0, 2), (0, 1))))
    return (
        d_q_BxHxLxC.transpose(0, 2, 1, 3).astype(q_BxLxHxC.dtype),
        d_k_BxHxCxM.transpose(0, 3, 1, 2).astype(k_BxMxHxC.dtype),
    )


@gradient.by_hand(_gradients_of_scores)
def _scores(q_BxLxHxC: jax.Array, k_BxMxHxC: jax.Array) -> jax.Array:
    """Products of queries and keys [B, H, L, M] in float32."""
    return jnp.einsum("blhc,bmhc->bhlm", q_BxLxHxC, k_BxMxHxC, preferred_element_type=jnp.float32)


def _plain(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: Noise | None,
    heads: int,
    dropout: float,
) -> jax.Array:
    q_BxLxHxC, k_BxLxHxC, v_BxLxHxC = split(qkv_BxLxM, bias_M, heads)
    out = attention(q_BxLxHxC, k_BxLxHxC, v_BxLxHxC, docs_BxL, dropout=dropout, noise=noise)
    return out.reshape(*docs_BxL.shape, -1)


def split(qkv_BxLxM: jax.Array, bias_M: jax.Array, heads: int) -> list[jax.Array]:
    """Queries, keys and values [B, L, H, C], with their bias."""
    batch, length, _ = qkv_BxLxM.shape
    whole_BxLxM = qkv_BxLxM + bias_M.astype(qkv_BxLxM.dtype)
    return [x.reshape(batch, length, heads, -1) for x in jnp.split(whole_BxLxM, 3, axis=-1)]
