"""Pretraining heads: the generator's transform before the vocabulary, the discriminator's logit per token."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.initial import truncated_normal
from electra_jax.model.layers import Matrix, ScaleNorm, layer_norm, padded_vocab
from electra_jax.ops import dense as products
from electra_jax.ops.gelu import gelu


class GeneratorHead(nn.Module):
    """dense -> GELU -> LayerNorm to the embedding width; holds the output bias of the vocabulary (zeros at first)."""

    embedding: int
    vocab_size: int
    init_std: float
    dtype: str

    @nn.compact
    def __call__(self, hidden_BxKxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Transformed hidden states [B, K, E] in the compute dtype and bias [V], to go with the word table."""
        dense = nn.Dense(
            self.embedding,
            dtype=self.dtype,
            kernel_init=truncated_normal(self.init_std),
            name="dense",
        )
        x_BxKxE = layer_norm(self.dtype, "norm")(gelu(dense(hidden_BxKxD)))
        return x_BxKxE, self.param("bias", nn.initializers.zeros, (padded_vocab(self.vocab_size),))


class DiscriminatorHead(nn.Module):
    """dense -> GELU -> one logit per token, positive for "replaced"."""

    init_std: float
    dtype: str

    @nn.compact
    def __call__(self, hidden_BxLxD: jax.Array) -> jax.Array:
        """Logits [B, L], float32."""
        dense = nn.Dense(
            hidden_BxLxD.shape[-1],
            dtype=self.dtype,
            kernel_init=truncated_normal(self.init_std),
            name="dense",
        )
        out = nn.Dense(1, dtype="float32", kernel_init=nn.initializers.glorot_uniform(), name="out")
        return out(gelu(dense(hidden_BxLxD)))[..., 0]


class PredictionHead(nn.Module):
    """ModernBERT's: dense -> GELU -> norm, of one width and without biases."""

    init_std: float
    dtype: str

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[..., D] in the compute dtype."""
        width = hidden.shape[-1]
        kernel_DxD = Matrix(width, width, self.init_std, self.dtype, name="dense")()
        x = gelu(products.product(hidden.astype(self.dtype), kernel_DxD))
        return ScaleNorm(self.dtype, name="norm")(x)


class WordHead(nn.Module):
    """A prediction head, whose output meets the word table, and the bias of the vocabulary (zeros at first)."""

    embedding: int
    vocab_size: int
    init_std: float
    dtype: str

    def setup(self) -> None:
        self.head = PredictionHead(self.init_std, self.dtype)
        nn.share_scope(self, self.head)
        self.bias = self.param("bias", nn.initializers.zeros, (padded_vocab(self.vocab_size),))

    def __call__(self, hidden_BxKxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Transformed hidden states [B, K, E] in the compute dtype and bias [V], to go with the word table."""
        return self.head(hidden_BxKxD), self.bias


class ReplacedHead(nn.Module):
    """A prediction head and one logit per token, positive for "replaced"."""

    init_std: float
    dtype: str

    def setup(self) -> None:
        self.head = PredictionHead(self.init_std, self.dtype)
        nn.share_scope(self, self.head)
        self.out = nn.Dense(1, dtype="float32", kernel_init=by_width)

    def __call__(self, hidden_BxLxD: jax.Array) -> jax.Array:
        """Logits [B, L], float32."""
        return self.out(self.head(hidden_BxLxD))[..., 0]


def by_width(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """ModernBERT's classifiers: a deviation of inputs^-0.5 ("final_out" of `_init_weights` in transformers)."""
    return truncated_normal(shape[0] ** -0.5)(key, shape, dtype)
