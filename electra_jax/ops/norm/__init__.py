"""LayerNorm with what surrounds it, a residual and dropout; or alone, without a shift."""

from electra_jax.ops.norm.api import norm, residual_norm
from electra_jax.ops.norm.plain import LAYER_NORM_EPS
from electra_jax.ops.norm.scaled import scale_norm

__all__ = ["LAYER_NORM_EPS", "norm", "residual_norm", "scale_norm"]
