"""A layer's feed-forward block: two products and a GELU between."""

import jax

from electra_jax.ops import dense
from electra_jax.ops.gelu import bias_gelu


def feed_forward(
    x_BxLxD: jax.Array, up_DxF: jax.Array, up_bias_F: jax.Array, down_FxD: jax.Array
) -> jax.Array:
    """gelu(x @ up + up_bias) @ down [B, L, D] in the dtype of x and of both matrices; the bias is float32."""
    h_BxLxF = dense.product(x_BxLxD, up_DxF)
    return dense.product(bias_gelu(h_BxLxF, up_bias_F), down_FxD)
