"""The building blocks of a post-LN BERT encoder: embeddings, self-attention, feed-forward, layer."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.initial import truncated_normal
from electra_jax.ops import dense, machine
from electra_jax.ops.attention import Mask, self_attention
from electra_jax.ops.feedforward import feed_forward
from electra_jax.ops.lookup import take_of_few
from electra_jax.ops.noise import Noise
from electra_jax.ops.norm import LAYER_NORM_EPS, norm, residual_norm

VOCAB_MULTIPLE = 128  # the table is padded to this many rows: lanes of a TPU, tiles of a GPU matmul


@dataclass(frozen=True)
class LayerSpec:
    """What one layer of an encoder needs to know."""

    width: int
    heads: int
    ffn: int
    dropout: float
    attention_dropout: float
    init_std: float
    dtype: str  # of matmuls
    residual_dtype: str  # of the stream between layers
    recompute_attention: bool = False  # in the backward pass, from queries, keys and values


def layer_norm(dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with eps 1e-12; statistics in float32, output in `dtype`.

    On a TPU the variance is the mean square less the squared mean, which the product before it adds up as it writes.
    """
    fast = machine.platform() == "tpu"
    return nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=dtype, use_fast_variance=fast, name=name)


def padded_vocab(vocab_size: int) -> int:
    """Rows of the word table: `vocab_size` rounded up to a multiple of VOCAB_MULTIPLE."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class Embeddings(nn.Module):
    """Word + position + type embeddings and their LayerNorm: the module generator and discriminator share."""

    vocab_size: int
    positions: int
    types: int
    width: int
    dropout: float
    init_std: float
    dtype: str

    def setup(self) -> None:
        normal = truncated_normal(self.init_std)
        self.word = self.param(
            "word", _zero_padded(normal, self.vocab_size), self.vocab_size, self.width
        )
        self.position = self.param("position", normal, (self.positions, self.width))
        self.type = self.param("type", normal, (self.types, self.width))
        self.norm = NormWeights(self.width)

    def __call__(
        self,
        ids_BxL: jax.Array,
        types_BxL: jax.Array,
        positions_BxL: jax.Array,
        noise: Noise | None,
    ) -> jax.Array:
        """Embeddings [B, L, E] in the residual dtype; dropout when there is noise."""
        x_BxLxE = (
            jnp.take(self.word, ids_BxL, axis=0)
            + jnp.take(self.position, positions_BxL, axis=0)
            + take_of_few(self.type, types_BxL)
        )
        return norm(x_BxLxE, *self.norm(), dropout=self.dropout, noise=noise, dtype=self.dtype)


def _zero_padded(
    normal: nn.initializers.Initializer, vocab_size: int
) -> Callable[[jax.Array, int, int], jax.Array]:
    """An initialiser of the word table whose real rows do not depend on the padding, and whose padding is zero."""

    def init(key: jax.Array, rows: int, width: int) -> jax.Array:
        return jnp.pad(normal(key, (rows, width)), ((0, padded_vocab(vocab_size) - rows), (0, 0)))

    return init


class Weights(nn.Module):
    """The kernel [D, F] and bias [F] of an `nn.Dense`, for operations that take in more than its product."""

    inputs: int
    outputs: int
    init_std: float

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Both in float32."""
        shape = (self.inputs, self.outputs)
        kernel = self.param("kernel", truncated_normal(self.init_std), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.outputs,))


class NormWeights(nn.Module):
    """The scale and bias [D] of an `nn.LayerNorm`, likewise."""

    width: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Both in float32."""
        scale = self.param("scale", nn.initializers.ones, (self.width,))
        return scale, self.param("bias", nn.initializers.zeros, (self.width,))


class Layer(nn.Module):
    """Post-LN transformer layer: x = LN(x + attention(x)); x = LN(x + feed-forward(x))."""

    spec: LayerSpec

    @nn.compact
    def __call__(
        self,
        x_BxLxD: jax.Array,
        operand_BxLxD: jax.Array | None,
        docs_BxL: jax.Array,
        noise: Noise | None,
    ) -> tuple[jax.Array, jax.Array]:
        """The residual stream, in its own dtype and as an operand in that of products, where None has it made here."""
        s = self.spec
        if operand_BxLxD is None:
            operand_BxLxD = x_BxLxD.astype(s.dtype)

        def weights(name: str, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
            kernel, bias = Weights(inputs, outputs, s.init_std, name=name)()
            return kernel.astype(s.dtype), bias

        def add(
            x_BxLxD: jax.Array, h_BxLxD: jax.Array, bias_D: jax.Array, norm: str, site: int
        ) -> tuple[jax.Array, jax.Array]:
            """The norm of this name of x + dropout(h + bias), for the stream and for products."""
            scale_shift = NormWeights(s.width, name=norm)()
            noise_here = noise and noise.at(site)
            return residual_norm(
                x_BxLxD, h_BxLxD, bias_D, *scale_shift, dropout=s.dropout, noise=noise_here
            )

        # One product for queries, keys and values: it reads x once, and one matrix is wide enough for a TPU.
        kernels, biases = zip(
            *(weights(name, s.width, s.width) for name in ("query", "key", "value")), strict=True
        )
        qkv_BxLxM = dense.product(operand_BxLxD, jnp.concatenate(kernels, axis=1))
        attend: Callable[..., jax.Array] = functools.partial(
            self_attention, heads=s.heads, dropout=s.attention_dropout
        )
        if s.recompute_attention:
            attend = jax.checkpoint(attend)
        mixed_BxLxD = attend(
            qkv_BxLxM, jnp.concatenate(biases), Mask(docs_BxL), noise=noise and noise.at(0)
        )
        out_DxD, out_bias_D = weights("out", s.width, s.width)
        h_BxLxD = dense.product(mixed_BxLxD, out_DxD)
        x_BxLxD, operand_BxLxD = add(x_BxLxD, h_BxLxD, out_bias_D, "attention_norm", 1)
        up_DxF, up_bias_F = weights("up", s.width, s.ffn)
        down_FxD, down_bias_D = weights("down", s.ffn, s.width)
        h_BxLxD = feed_forward(operand_BxLxD, up_DxF, up_bias_F, down_FxD)
        return add(x_BxLxD, h_BxLxD, down_bias_D, "output_norm", 2)
