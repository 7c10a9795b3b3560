"""A layer's feed-forward block, two products and a GELU between; the GELU by a platform's kernels if it has some."""

import jax

from electra_jax.ops import dense, target
from electra_jax.ops.gelu import gelu


def feed_forward(
    x_BxLxD: jax.Array, up_DxF: jax.Array, up_bias_F: jax.Array, down_FxD: jax.Array
) -> jax.Array:
    """gelu(x @ up + up_bias) @ down [B, L, D] in the dtype of x and of both matrices; the bias is float32."""
    h_BxLxF = dense.product(x_BxLxD, up_DxF)
    return dense.product(bias_gelu(h_BxLxF, up_bias_F), down_FxD)


def bias_gelu(h_BxLxF: jax.Array, bias_F: jax.Array) -> jax.Array:
    """gelu(h + bias) [B, L, F] in h's dtype; the bias is float32.

    On the mesh of the program being traced (`jax.sharding.use_abstract_mesh`) an H100 or H200 takes the kernels of
    `gpu/gelu.py`, each device for its own rows. What they do not support, and every other platform, takes plain array
    functions; then a line says so once.
    """
    if target.on_hopper():
        from electra_jax.ops.gpu import gelu as gelu_gpu

        _, length, width = h_BxLxF.shape
        return target.by_kernel(
            "GELU",
            gelu_gpu.bias_gelu,
            _bias_gelu,
            lambda batch: gelu_gpu.obstacle(batch * length, width, h_BxLxF.dtype),
            (h_BxLxF, bias_F),
            (True, False),
        )
    return _bias_gelu(h_BxLxF, bias_F)


def _bias_gelu(h_BxLxF: jax.Array, bias_F: jax.Array) -> jax.Array:
    return gelu(h_BxLxF + bias_F.astype(h_BxLxF.dtype))
