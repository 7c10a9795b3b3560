"""The parameters that blocks, embeddings and heads are made of: matrices with a bias, LayerNorms."""

import flax.linen as nn
import jax

from electra_jax.model.initial import truncated_normal
from electra_jax.ops import machine
from electra_jax.ops.noise import Noise
from electra_jax.ops.norm import LAYER_NORM_EPS, norm, scale_norm

VOCAB_MULTIPLE = 128  # the table is padded to this many rows: lanes of a TPU, tiles of a GPU matmul


def layer_norm(dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with eps 1e-12; statistics in float32, output in `dtype`.

    On a TPU the variance is the mean square less the squared mean, which the product before it adds up as it writes.
    """
    fast = machine.platform() == "tpu"
    return nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=dtype, use_fast_variance=fast, name=name)


def padded_vocab(vocab_size: int) -> int:
    """Rows of the word table: `vocab_size` rounded up to a multiple of VOCAB_MULTIPLE."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class Weights(nn.Module):
    """The kernel [D, F] and bias [F] of an `nn.Dense`, for operations that do more than its product."""

    inputs: int
    outputs: int
    init_std: float
    dtype: str  # of the kernel when it is used

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """The kernel in `dtype`, the bias in float32."""
        shape = (self.inputs, self.outputs)
        kernel_DxF = self.param("kernel", truncated_normal(self.init_std), shape)
        bias_F = self.param("bias", nn.initializers.zeros, (self.outputs,))
        return kernel_DxF.astype(self.dtype), bias_F


class Matrix(nn.Module):
    """The kernel [D, F] of an `nn.Dense` without a bias, in `dtype`."""

    inputs: int
    outputs: int
    init_std: float
    dtype: str

    @nn.compact
    def __call__(self) -> jax.Array:
        """The kernel."""
        shape = (self.inputs, self.outputs)
        return self.param("kernel", truncated_normal(self.init_std), shape).astype(self.dtype)


class ScaleNorm(nn.Module):
    """LayerNorm with eps 1e-5 and a scale, without a shift: ModernBERT's."""

    dtype: str  # of what it returns

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """[B, L, D]."""
        scale_D = self.param("scale", nn.initializers.ones, (x_BxLxD.shape[-1],))
        return scale_norm(x_BxLxD, scale_D, dtype=self.dtype)


class Norm(nn.Module):
    """dropout(LayerNorm(x)), with the parameters of an `nn.LayerNorm`."""

    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, noise: Noise | None) -> jax.Array:
        """[B, L, D] in `dtype`; dropout when there is noise."""
        affine, rate = scale_and_shift(self, x_BxLxD.shape[-1]), self.dropout
        return norm(x_BxLxD, *affine, dropout=rate, noise=noise, dtype=self.dtype)


def scale_and_shift(module: nn.Module, width: int) -> tuple[jax.Array, jax.Array]:
    """The parameters [D] of a module that is a LayerNorm, float32."""
    scale_D = module.param("scale", nn.initializers.ones, (width,))
    return scale_D, module.param("bias", nn.initializers.zeros, (width,))
