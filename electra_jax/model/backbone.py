"""From tokens to hidden states: embeddings, and an encoder of a projection and a stack of layers."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.blocks import BLOCKS, LayerSpec, Stream
from electra_jax.model.initial import truncated_normal
from electra_jax.model.layers import Norm, ScaleNorm, padded_vocab
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.lookup import take_of_few
from electra_jax.ops.noise import Noise


@dataclass(frozen=True, kw_only=True)
class EmbeddingsSpec:
    """Tables of one width; that of words is padded with rows of zeros."""

    vocab_size: int
    positions: int
    types: int
    width: int
    dropout: float
    init_std: float
    dtype: str


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A stack of layers of one width, fed with embeddings of width `embedding`."""

    embedding: int
    stack: tuple[LayerSpec, ...]  # the lowest first
    remat: bool = False  # compute each layer again in the backward pass
    final_norm: bool = False  # on the last layer's stream: of pre-norm layers

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.stack)

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.stack[0].width


class Embeddings(nn.Module):
    """Word + position + type embeddings and their LayerNorm: the module generator and discriminator share."""

    spec: EmbeddingsSpec

    def setup(self) -> None:
        s = self.spec
        normal = truncated_normal(s.init_std)
        padded = truncated_normal(s.init_std, zeros=padded_vocab(s.vocab_size) - s.vocab_size)
        self.word = self.param("word", padded, (s.vocab_size, s.width))
        self.position = self.param("position", normal, (s.positions, s.width))
        self.type = self.param("type", normal, (s.types, s.width))
        self.norm = Norm(s.dropout, s.dtype)

    def __call__(self, tokens: Tokens, noise: Noise | None) -> jax.Array:
        """Embeddings [B, L, E] in the residual dtype; dropout when there is noise."""
        x_BxLxE = (
            jnp.take(self.word, tokens.ids, axis=0)
            + jnp.take(self.position, tokens.positions, axis=0)
            + take_of_few(self.type, tokens.types)
        )
        return self.norm(x_BxLxE, noise)


class WordEmbeddings(nn.Module):
    """Word embeddings and their norm alone: rotary positions are in the layers, and there are no types."""

    spec: EmbeddingsSpec

    def setup(self) -> None:
        s = self.spec
        padded = truncated_normal(s.init_std, zeros=padded_vocab(s.vocab_size) - s.vocab_size)
        self.word = self.param("word", padded, (s.vocab_size, s.width))
        self.norm = ScaleNorm(s.dtype)

    def __call__(self, tokens: Tokens, noise: Noise | None) -> jax.Array:
        """Embeddings [B, L, E] in the residual dtype; dropout when there is noise."""
        x_BxLxE = self.norm(jnp.take(self.word, tokens.ids, axis=0))
        return noise_ops.dropout(x_BxLxE, self.spec.dropout, noise)


class Encoder(nn.Module):
    """Embeddings [B, L, E] -> hidden states [B, L, D]."""

    spec: EncoderSpec

    @nn.compact
    def __call__(self, x_BxLxE: jax.Array, tokens: Tokens, noise: Noise | None) -> jax.Array:
        """Hidden states in the residual dtype; dropout when there is noise."""
        s, first = self.spec, self.spec.stack[0]
        x_BxLxD = x_BxLxE
        if s.embedding != s.width:
            # The original leaves this layer on TensorFlow's default initialiser, glorot uniform.
            project = nn.Dense(
                s.width,
                dtype=first.dtype,
                kernel_init=nn.initializers.glorot_uniform(),
                name="project",
            )
            x_BxLxD = project(x_BxLxE)
        stream = Stream(x_BxLxD.astype(first.residual_dtype))
        for i, layer in enumerate(s.stack):
            block = BLOCKS[layer.block]
            # A parameter that is drawn within remat cannot be drawn together with others.
            if s.remat and not self.is_initializing():
                block = nn.remat(block)
            stream = block(layer, name=f"layer_{i}")(stream, tokens, noise and noise.at(1 + i))
            if s.remat:  # The backward pass keeps what a layer takes.
                stream = Stream(stream.value)
        if s.final_norm:
            return ScaleNorm(first.residual_dtype, name="final_norm")(stream.value)
        return stream.value


@dataclass(frozen=True)
class Backbone:
    """Embeddings and an encoder on them, two modules of the network that calls it: the one way to hidden states."""

    embeddings: Embeddings
    encoder: Encoder

    def __call__(self, tokens: Tokens, noise: Noise | None) -> jax.Array:
        """Hidden states [B, L, D] in the residual dtype; dropout when there is noise."""
        return self.encoder(self.embeddings(tokens, noise and noise.at(0)), tokens, noise)
