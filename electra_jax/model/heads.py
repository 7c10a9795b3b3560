"""Pretraining heads: the generator's transform before the vocabulary, the discriminator's logit per token."""

import flax.linen as nn
import jax

from electra_jax.model.initial import truncated_normal
from electra_jax.model.layers import layer_norm, padded_vocab
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
