"""The GELU of a feed-forward block, alone, of a sum with a bias, or times a gate."""

from electra_jax.ops.gelu.api import bias_gelu, geglu, gelu

__all__ = ["bias_gelu", "geglu", "gelu"]
