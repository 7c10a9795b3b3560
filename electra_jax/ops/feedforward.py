"""A layer's feed-forward block: products and a GELU between, or one with a gate."""

import jax

from electra_jax.ops import dense
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gelu import bias_gelu, geglu
from electra_jax.ops.noise import Noise


def feed_forward(
    x_BxLxD: jax.Array, up_DxF: jax.Array, up_bias_F: jax.Array, down_FxD: jax.Array
) -> jax.Array:
    """gelu(x @ up + up_bias) @ down [B, L, D] in the dtype of x and of both matrices; the bias is float32."""
    h_BxLxF = dense.product(x_BxLxD, up_DxF)
    return dense.product(bias_gelu(h_BxLxF, up_bias_F), down_FxD)


def gated_feed_forward(
    x_BxLxD: jax.Array,
    up_DxF: jax.Array,
    gate_DxF: jax.Array,
    down_FxD: jax.Array,
    *,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> jax.Array:
    """dropout(gelu(x @ up) x (x @ gate)) @ down [B, L, D] in the dtype of all four. Dropout needs `noise`."""
    h_BxLxF = geglu(dense.product(x_BxLxD, up_DxF), dense.product(x_BxLxD, gate_DxF))
    return dense.product(noise_ops.dropout(h_BxLxF, dropout, noise), down_FxD)
