"""An encoder with the head that scores tokens, and what its numbers mean."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.backbone import Backbone, EmbeddingsSpec, Encoder, EncoderSpec
from electra_jax.model.electra import gather_positions
from electra_jax.model.family import FAMILIES
from electra_jax.model.options import ELECTRA
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import vocabulary_slots

# What a head says of a token. The last is no likelihood.
ENERGY, MASKED_LM, DETECTION = "energy", "masked-lm", "detection"
MEANING = {
    ENERGY: "pseudo-log-likelihood up to a constant a token, minus the sum of the energies (one pass; Clark et al., "
    "arXiv:2012.08561)",
    MASKED_LM: "pseudo-log-likelihood in nats, the sum of log P(token | the others), each token masked in turn "
    "(Salazar et al., arXiv:1910.14659)",
    DETECTION: "sum of log P(original) over the tokens: a score of how natural a text looks to the discriminator, "
    "NOT a likelihood",
}
HEADS = tuple(MEANING)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that fixes the network."""

    head: str  # one of HEADS
    embeddings: EmbeddingsSpec
    encoder: EncoderSpec
    vocab_size: int  # tokens that a word can be; the table may have more rows
    init_std: float = 0.02  # of nothing here: parameters are given
    family: str = ELECTRA

    @property
    def one_pass(self) -> bool:
        """Whether one pass over a text scores all its tokens."""
        return self.head != MASKED_LM


class Network(nn.Module):
    """Embeddings, encoder and head under these three names."""

    spec: Spec

    def setup(self) -> None:
        s, family = self.spec, FAMILIES[self.spec.family]
        self.embeddings, self.encoder = family.embeddings(s.embeddings), Encoder(s.encoder)
        common: dict[str, Any] = {"init_std": s.init_std, "dtype": "float32"}
        if s.one_pass:
            self.head: nn.Module = family.discriminator_head(**common)
        else:
            rows = s.embeddings.vocab_size
            self.head = family.generator_head(
                embedding=s.encoder.embedding, vocab_size=rows, **common
            )

    def every(self, tokens: Tokens) -> jax.Array:
        """The score of every token [B, L], higher where it looks more natural."""
        logit_BxL = self.head(Backbone(self.embeddings, self.encoder)(tokens, None))
        return -logit_BxL if self.spec.head == ENERGY else jax.nn.log_sigmoid(-logit_BxL)

    def masked(self, tokens: Tokens, at_BxK: jax.Array, targets_BxK: jax.Array) -> jax.Array:
        """The log-probabilities [B, K] of the targets at these places."""
        hidden_BxLxD = Backbone(self.embeddings, self.encoder)(tokens, None)
        hidden_BxKxE, bias_V = self.head(gather_positions(hidden_BxLxD, at_BxK))
        rows_B = jnp.arange(len(at_BxK), dtype=jnp.int32)
        slots = vocabulary_slots(
            hidden_BxKxE,
            self.embeddings.word,
            bias_V,
            targets_BxK,
            vocab_size=self.spec.vocab_size,
            noise=noise_ops.for_rows(jax.random.key(0), rows_B),  # of samples, which nothing reads
        )
        return -slots.loss

    def __call__(self, tokens: Tokens) -> None:
        """Uses every parameter, for `init`."""
        if self.spec.one_pass:
            self.every(tokens)
        else:
            self.masked(tokens, tokens.positions, tokens.ids)
