"""The GELU of a feed-forward block."""

from electra_jax.ops.gelu.api import bias_gelu, gelu

__all__ = ["bias_gelu", "gelu"]
