"""Attention of queries to keys within documents."""

from electra_jax.ops.attention.api import self_attention
from electra_jax.ops.attention.mask import Mask
from electra_jax.ops.attention.rotation import Rotation

__all__ = ["Mask", "Rotation", "self_attention"]
