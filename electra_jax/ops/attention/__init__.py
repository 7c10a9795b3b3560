"""Attention of queries to keys within documents."""

from electra_jax.ops.attention.api import self_attention
from electra_jax.ops.attention.inputs import Mask, Rotation

__all__ = ["Mask", "Rotation", "self_attention"]
