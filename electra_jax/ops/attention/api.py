"""Scaled dot-product self-attention with dropout on the weights: the seam, and which implementations there are."""

import jax

from electra_jax.ops.attention import plain
from electra_jax.ops.attention.inputs import Inputs, Mask, Rotation
from electra_jax.ops.kernel import Implementation, Operation, in_module
from electra_jax.ops.noise import Noise

_ATTENTION = Operation(
    "attention",
    in_module("attention.tpu", runs_on="tpu"),
    in_module("attention.hopper", runs_on="hopper"),
    in_module("attention.cudnn", runs_on="gpu"),
    Implementation(name="plain", run=plain.run),
    rows=("qkv_BxLxM", "mask", "noise", "rotation"),
)


def self_attention(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array | None,
    mask: Mask,
    *,
    heads: int,
    dropout: float = 0.0,
    noise: Noise | None = None,
    rotation: Rotation | None = None,
) -> jax.Array:
    """Attention [B, L, D] of queries, keys and values side by side in [B, L, 3 D], to which their bias is still added.

    The output has qkv's dtype; scores, softmax and dropout are float32. The bias is an argument because a kernel has
    its gradient at hand; None where projections have none. `rotation` turns queries and keys after their bias. Dropout
    needs `noise`.
    """
    rate = dropout if noise is not None else 0.0
    inputs = Inputs(qkv_BxLxM, bias_M, mask, noise if rate else None, rotation)
    return _ATTENTION(inputs, heads=heads, dropout=rate)
