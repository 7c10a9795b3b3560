"""The building blocks of a post-LN BERT encoder: embeddings, self-attention, feed-forward, layer."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import target
from electra_jax.ops.attention import self_attention
from electra_jax.ops.gelu import gelu
from electra_jax.ops.noise import Noise

LAYER_NORM_EPS = 1e-12  # tf.contrib.layers.layer_norm, used by the original
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


def truncated_normal(stddev: float) -> nn.initializers.Initializer:
    """Normal of this deviation cut at two deviations, without rescaling (TensorFlow's, used by the original)."""
    return nn.initializers.truncated_normal(stddev)


def layer_norm(dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with eps 1e-12; statistics in float32, output in `dtype`.

    On a TPU the variance is the mean square less the squared mean, which the product before it adds up as it writes.
    """
    fast = target.platform() == "tpu"
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
        self.norm = layer_norm(self.dtype)

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
            + jnp.take(self.type, types_BxL, axis=0)
        )
        return noise_ops.dropout(self.norm(x_BxLxE), self.dropout, noise)


def _zero_padded(
    normal: nn.initializers.Initializer, vocab_size: int
) -> Callable[[jax.Array, int, int], jax.Array]:
    """An initialiser of the word table whose real rows do not depend on the padding, and whose padding is zero."""

    def init(key: jax.Array, rows: int, width: int) -> jax.Array:
        return jnp.pad(normal(key, (rows, width)), ((0, padded_vocab(vocab_size) - rows), (0, 0)))

    return init


class Projection(nn.Module):
    """The kernel [D, D] and bias [D] of a Dense, for a product that several of them share."""

    width: int
    init_std: float

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Both in float32."""
        kernel = self.param("kernel", truncated_normal(self.init_std), (self.width, self.width))
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,))


class Layer(nn.Module):
    """Post-LN transformer layer: x = LN(x + attention(x)); x = LN(x + feed-forward(x))."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, docs_BxL: jax.Array, noise: Noise | None) -> jax.Array:
        s = self.spec

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features, dtype=s.dtype, kernel_init=truncated_normal(s.init_std), name=name
            )

        def drop(x: jax.Array, site: int) -> jax.Array:
            return noise_ops.dropout(x, s.dropout, noise and noise.at(site))

        # One product for queries, keys and values: it reads x once, and one matrix is wide enough for a TPU.
        kernels, biases = zip(
            *(Projection(s.width, s.init_std, name=n)() for n in ("query", "key", "value")),
            strict=True,
        )
        kernel_DxM = jnp.concatenate([k.astype(s.dtype) for k in kernels], axis=1)
        qkv_BxLxM = jnp.dot(x_BxLxD.astype(s.dtype), kernel_DxM)
        attend: Callable[..., jax.Array] = functools.partial(
            self_attention, heads=s.heads, dropout=s.attention_dropout
        )
        if s.recompute_attention:
            attend = jax.checkpoint(attend)
        mixed_BxLxD = attend(
            qkv_BxLxM, jnp.concatenate(biases), docs_BxL, noise=noise and noise.at(0)
        )
        mixed_BxLxD = dense(s.width, "out")(mixed_BxLxD)
        x_BxLxD = layer_norm(s.residual_dtype, "attention_norm")(x_BxLxD + drop(mixed_BxLxD, 1))
        inner_BxLxF = gelu(dense(s.ffn, "up")(x_BxLxD))
        x_BxLxD += drop(dense(s.width, "down")(inner_BxLxF), 2)
        return layer_norm(s.residual_dtype, "output_norm")(x_BxLxD)
