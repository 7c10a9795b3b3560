"""LayerNorm with what surrounds it, a residual and dropout."""

from electra_jax.ops.norm.api import norm, residual_norm
from electra_jax.ops.norm.plain import LAYER_NORM_EPS

__all__ = ["LAYER_NORM_EPS", "norm", "residual_norm"]
