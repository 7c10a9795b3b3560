"""What is chosen together: single tokens, words, spans of tokens or of words.

A unit puts the positions of a row into groups, and the choice takes groups whole, in random order, each that still
fits. A length of a span is drawn where the one before it ends, so that spans cover the row and do not overlap.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.spec import UserError, check_choice

MOST = 32  # the longest span


class Unit(Protocol):
    """A way to group positions; static, part of the compiled step."""

    def groups(
        self, noise: Noise, candidate_BxL: jax.Array, word_starts_BxL: jax.Array
    ) -> jax.Array | None:
        """Number of each position's group, int32 [B, L], ascending from 1 along the row; None: each is by itself.

        `candidate`, bool, says which positions may be chosen: a group ends before one that may not.
        """
        ...


@dataclass(frozen=True)
class Token:
    """Every token by itself."""

    def groups(
        self, noise: Noise, candidate_BxL: jax.Array, word_starts_BxL: jax.Array
    ) -> jax.Array | None:
        """None."""
        return None


@dataclass(frozen=True)
class Word:
    """All tokens of a word."""

    def groups(
        self, noise: Noise, candidate_BxL: jax.Array, word_starts_BxL: jax.Array
    ) -> jax.Array | None:
        """The words of the row, counted."""
        # A special is a word of its own, so no word runs across one.
        return jnp.cumsum((word_starts_BxL > 0) | ~candidate_BxL, axis=1)


@dataclass(frozen=True)
class Span:
    """Stretches of tokens, or of whole words, of random lengths."""

    shares: tuple[float, ...]  # of the lengths 1, 2, ...; they add to 1
    words: bool  # lengths count words, else tokens

    def groups(
        self, noise: Noise, candidate_BxL: jax.Array, word_starts_BxL: jax.Array
    ) -> jax.Array | None:
        """The spans that the row falls into, counted."""
        begins_BxL = ~candidate_BxL | (word_starts_BxL > 0 if self.words else True)
        draw_BxL = noise_ops.uniform(noise.at(0), noise_ops.count(candidate_BxL.shape[1]))
        longer_N = np.cumsum(self.shares[:-1]).astype(np.float32)
        length_BxL = 1 + jnp.sum(draw_BxL[..., None] >= longer_N, axis=-1)

        def walk(
            left_B: jax.Array, at: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            candidate_B, begins_B, length_B = at
            opens_B = ~candidate_B | (begins_B & (left_B == 0))
            left_B = jnp.where(opens_B, length_B - 1, left_B - begins_B)
            return jnp.where(candidate_B, left_B, 0), opens_B

        start_B = jnp.zeros(len(candidate_BxL), length_BxL.dtype)
        _, opens_LxB = jax.lax.scan(walk, start_B, (candidate_BxL.T, begins_BxL.T, length_BxL.T))
        return jnp.cumsum(opens_LxB.T, axis=1)


def geometric(longest: int, stop: float = 0.2) -> tuple[float, ...]:
    """Shares of the lengths of SpanBERT's spans (Joshi et al., 2020, arXiv:1907.10529): a geometric distribution cut
    off after `longest`, 3.8 on average for 10.
    """
    share_N = stop * (1 - stop) ** np.arange(longest)
    return tuple((share_N / share_N.sum()).tolist())


def harmonic(longest: int) -> tuple[float, ...]:
    """Shares of the lengths of ALBERT's n-grams (Lan et al., 2020, arXiv:1909.11942): as 1 / n."""
    share_N = 1 / np.arange(1, longest + 1)
    return tuple((share_N / share_N.sum()).tolist())


# By name: the shares of lengths, and the longest one of its source.
LENGTHS = {"spans": (geometric, 10), "ngrams": (harmonic, 3)}
NAMES = ("tokens", *LENGTHS)


def of(masking: str, longest: int, whole_word: bool) -> Unit:
    """The unit that options name; UserError where they do not go together. `longest` 0: that of the source."""
    check_choice("objective.masking", masking, NAMES)
    if not 0 <= longest <= MOST:
        raise UserError(f"objective.span_max={longest} must be in [0, {MOST}]")
    if masking in LENGTHS:
        shares, usual = LENGTHS[masking]
        return Span(shares(longest or usual), whole_word)
    if longest:
        raise UserError(
            f"objective.span_max={longest} is an option of spans and ngrams, but objective.masking={masking}; leave it "
            "at 0 or set --config.objective.masking=spans"
        )
    return Word() if whole_word else Token()
