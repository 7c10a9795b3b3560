"""A two-tower cloze model beside a discriminator: the networks of Electric (Clark et al., 2020, arXiv:2012.08561).

One transformer reads a row from left to right, another from right to left. What both know of a place without having
seen its token predicts it: at every place at once, which no bidirectional network can do in one pass.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.backbone import Backbone, Encoder, EncoderSpec
from electra_jax.model.electra import Dimensions
from electra_jax.model.heads import GeneratorHead
from electra_jax.model.tokens import Tokens
from electra_jax.ops.noise import Noise


class Towers(nn.Module):
    """Two unidirectional encoders of the generator's size and a discriminator of the full size.

    All read the same embeddings; with tying "none" the towers have their own.
    """

    dims: Dimensions

    def setup(self) -> None:
        d, s = self.dims, self.dims.spec
        self.embeddings = d.family.embeddings(d.embeddings(s.embedding))
        self.discriminator = Encoder(d.discriminator)
        self.discriminator_head = d.family.discriminator_head(
            init_std=d.head_std(d.discriminator), dtype=s.dtype
        )
        if s.tying == "none":
            self.generator_embeddings = d.family.embeddings(d.embeddings(d.generator_embedding))
        self.generator_rightward = Encoder(causal(d.generator))
        self.generator_leftward = Encoder(causal(d.generator))
        # In either family: the other's keeps the width, and here are two towers of it.
        self.generator_head = GeneratorHead(
            embedding=d.generator_embedding,
            vocab_size=d.rows,
            init_std=d.head_std(d.generator),
            dtype=s.dtype,
        )

    def cloze(
        self, tokens: Tokens, noise: tuple[Noise | None, Noise | None] = (None, None)
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(hidden [B, L, E], word table [V, E], bias [V]) of every place, which depend on all tokens but its own.

        `noise` is that of dropout in each tower. A tower that has nothing of the token's document before it says zeros.
        """
        embeddings = (
            self.generator_embeddings if self.dims.spec.tying == "none" else self.embeddings
        )
        right_BxLxD = Backbone(embeddings, self.generator_rightward)(tokens, noise[0])
        turned = Tokens(*(x_BxL[:, ::-1] for x_BxL in tokens))
        left_BxLxD = Backbone(embeddings, self.generator_leftward)(turned, noise[1])[:, ::-1]
        both_BxLxD = jnp.concatenate(
            [neighbour(right_BxLxD, tokens.docs, 1), neighbour(left_BxLxD, tokens.docs, -1)],
            axis=-1,
        )
        hidden_BxLxE, bias_V = self.generator_head(both_BxLxD)
        return hidden_BxLxE, embeddings.word, bias_V

    def discriminate(self, tokens: Tokens, noise: Noise | None = None) -> jax.Array:
        """A number [B, L] float32 for every token; its meaning is the objective's."""
        backbone = Backbone(self.embeddings, self.discriminator)
        return self.discriminator_head(backbone(tokens, noise))

    def __call__(self) -> None:
        """Uses every parameter, for `init`."""
        tokens = Tokens.single()
        self.cloze(tokens)
        self.discriminate(tokens)


def causal(spec: EncoderSpec) -> EncoderSpec:
    """The encoder whose layers see no later token."""
    return dataclasses.replace(
        spec, stack=tuple(dataclasses.replace(layer, causal=True) for layer in spec.stack)
    )


def neighbour(x_BxLxD: jax.Array, docs_BxL: jax.Array, places: int) -> jax.Array:
    """At every place what stands `places` (1 or -1) before it, zeros where that is of another document or nothing."""
    moved_BxLxD = jnp.roll(x_BxLxD, places, axis=1)
    same_BxL = jnp.roll(docs_BxL, places, axis=1) == docs_BxL
    edge = 0 if places > 0 else -1
    same_BxL = same_BxL.at[:, edge].set(False)
    return jnp.where(same_BxL[..., None], moved_BxLxD, jnp.zeros((), x_BxLxD.dtype))
