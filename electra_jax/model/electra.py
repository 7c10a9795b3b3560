"""ELECTRA's two networks over shared embeddings, the plain masked LM, and their dimensions."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model import family as families
from electra_jax.model.backbone import Backbone, EmbeddingsSpec, Encoder, EncoderSpec
from electra_jax.model.blocks import LayerSpec
from electra_jax.model.family import FAMILIES, Family
from electra_jax.model.layers import padded_vocab
from electra_jax.model.options import MODERN, EncoderOptions
from electra_jax.model.tokens import Tokens
from electra_jax.ops.noise import Noise
from electra_jax.spec import UserError, check_choice

Params = dict[str, Any]


# Beyond these a number is a slip of the hand or a damaged file; it is refused before anything is allocated.
MOST = {
    "layers": 1000,
    "width": 2**16,
    "heads": 2**10,
    "ffn": 2**18,
    "embedding": 2**16,
    "positions": 2**20,
    "types": 2**10,
}
MOST_ROWS = 2**24
MOST_RATIO = 16.0  # of the generator's width and depth to the discriminator's
TYINGS = ("embeddings", "none", "all", "gdes")
REMATS = ("none", "attention", "layer")  # each keeps less than the one before


@dataclass(frozen=True, kw_only=True)
class ModelSpec(EncoderOptions):
    """The config section `model` of pretraining: the discriminator's encoder, and the generator's as ratios of it.

    The generator's heads are width // 64, its feed-forward width 4 x width; in the modern family a generator of the
    same width has the discriminator's of both.
    """

    generator_size: float  # ratio of the generator's width to the discriminator's
    generator_layers: float  # ratio of the generator's layers to the discriminator's
    tying: str  # what the networks share: embeddings | none | all (one network serves both) | gdes (but for a delta)
    vocab_rows: int = 0  # rows of the word table where it has more than tokens; 0: as many

    def __post_init__(self) -> None:
        check_choice("model.tying", self.tying, TYINGS)
        check_choice("model.remat", self.remat, REMATS)
        check_choice("model.family", self.family, tuple(FAMILIES))
        for name in ("dtype", "residual_dtype"):
            check_choice(f"model.{name}", getattr(self, name), ("float32", "bfloat16"))
        for name in ("layers", "width", "heads", "ffn", "embedding", "positions", "types"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 1")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise UserError(f"model.{name}={getattr(self, name)} must be at most {most:,}")
        if not 0 <= self.vocab_rows <= MOST_ROWS:
            raise UserError(f"model.vocab_rows={self.vocab_rows} must be in [0, {MOST_ROWS:,}]")
        for name in ("generator_size", "generator_layers"):
            if not 0 < getattr(self, name) <= MOST_RATIO:
                raise UserError(
                    f"model.{name}={getattr(self, name)} must be above 0 and at most {MOST_RATIO:g}"
                )
        for name in ("dropout", "attention_dropout", "embedding_dropout", "mlp_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)} must be in [0, 1)")
        if self.width % self.heads:
            raise UserError(
                f"model.width={self.width} is not a multiple of model.heads={self.heads}"
            )
        if self.tying != "all":
            width = round(self.generator_size * self.width)
            if width < 1 or round(self.generator_layers * self.layers) < 1:
                raise UserError(
                    f"model.generator_size={self.generator_size} and generator_layers={self.generator_layers} "
                    "leave the generator without width or layers"
                )
            if width % generator_heads(self, width):
                raise UserError(
                    f"model.generator_size={self.generator_size} gives a generator of width {width}, which its "
                    f"{width // 64} heads (width // 64) do not divide; choose another ratio"
                )
        families.check(self)
        if self.family == MODERN and self.tying in ("embeddings", "gdes"):
            self._check_width(round(self.generator_size * self.width))

    def _check_width(self, generator: int) -> None:
        if generator != self.width:
            raise UserError(
                f"model.generator_size={self.generator_size} gives a generator of width {generator}, but its "
                f"embeddings, the discriminator's, have model.width={self.width}, and model.family=modern has no "
                "projection between; set model.generator_size=1.0, with fewer generator_layers, or model.tying=none"
            )


def generator_heads(spec: ModelSpec, width: int) -> int:
    """Heads of a generator of this width: width // 64; in the modern family the discriminator's where widths agree."""
    if spec.family == MODERN and width == spec.width:
        return spec.heads
    return max(1, width // 64)


@dataclass(frozen=True)
class Dimensions:
    """A ModelSpec and the vocabulary size, which comes from the prepared data: all that fixes the parameters.

    `vocab_size` counts the tokens that can be met, learned and drawn; the word table may have more rows.
    """

    spec: ModelSpec
    vocab_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.vocab_size <= MOST_ROWS:
            found = f"{self.vocab_size:,} tokens"
            raise UserError(f"a vocabulary of {found}; expected 1 to {MOST_ROWS:,}")
        if 0 < self.spec.vocab_rows < self.vocab_size:
            raise UserError(
                f"model.vocab_rows={self.spec.vocab_rows} is fewer than the {self.vocab_size:,} tokens of the "
                "vocabulary; 0 gives every token one"
            )

    @property
    def rows(self) -> int:
        """Rows of the word table that belong to the model, those that no token has included."""
        return max(self.vocab_size, self.spec.vocab_rows)

    @property
    def padded_rows(self) -> int:
        """Rows of the word table as it is held here: a multiple of VOCAB_MULTIPLE, the last ones zero."""
        return padded_vocab(self.rows)

    @property
    def generator_width(self) -> int:
        """round(ratio x width); the full width when everything is tied."""
        return (
            self.spec.width
            if self.spec.tying == "all"
            else round(self.spec.generator_size * self.spec.width)
        )

    @property
    def generator_embedding(self) -> int:
        """Width of the embeddings the generator reads; its own width when untied."""
        return self.generator_width if self.spec.tying == "none" else self.spec.embedding

    @property
    def two_embeddings(self) -> bool:
        """Whether the generator reads embeddings of its own."""
        return self.spec.tying in ("none", "gdes")

    @property
    def discriminator(self) -> EncoderSpec:
        """The full-size encoder."""
        s = self.spec
        return self._encoder(
            layers=s.layers, embedding=s.embedding, width=s.width, heads=s.heads, ffn=s.ffn
        )

    @property
    def generator(self) -> EncoderSpec:
        """The generator's encoder.

        Feed-forward 4 x width; in the modern family as many times its width as in the discriminator.
        """
        width = self.generator_width
        modern = self.spec.family == MODERN
        if self.spec.tying == "all":
            return self.discriminator
        return self._encoder(
            layers=round(self.spec.generator_layers * self.spec.layers),
            embedding=self.generator_embedding,
            width=width,
            heads=generator_heads(self.spec, width),
            ffn=round(self.spec.ffn * width / self.spec.width) if modern else 4 * width,
        )

    def _encoder(
        self, *, layers: int, embedding: int, width: int, heads: int, ffn: int
    ) -> EncoderSpec:
        s = self.spec
        layer = LayerSpec(
            width=width,
            heads=heads,
            ffn=ffn,
            dropout=s.dropout,
            attention_dropout=s.attention_dropout,
            init_std=s.init_std,
            dtype=s.dtype,
            residual_dtype=s.residual_dtype,
            recompute_attention=s.remat == "attention",
        )
        stack, modern = (layer,) * layers, s.family == MODERN
        if modern:
            stack = families.stack(s, layer, layers)
        return EncoderSpec(
            embedding=embedding, stack=stack, remat=s.remat == "layer", final_norm=modern
        )

    @property
    def family(self) -> Family:
        """The modules of the networks."""
        return FAMILIES[self.spec.family]

    def head_std(self, encoder: EncoderSpec) -> float:
        """The deviation of fresh weights of a head on this encoder."""
        if self.spec.family == MODERN:
            return families.last_std(self.spec, encoder.layers)
        return self.spec.init_std

    def embeddings(self, width: int) -> EmbeddingsSpec:
        """The embeddings of this width."""
        s = self.spec
        return EmbeddingsSpec(
            vocab_size=self.rows,
            positions=s.positions,
            types=s.types,
            width=width,
            dropout=s.embedding_dropout if s.family == MODERN else s.dropout,
            init_std=s.init_std,
            dtype=s.residual_dtype,
        )


class Electra(nn.Module):
    """Generator and discriminator over shared embeddings.

    With tying "gdes" the parameters hold the discriminator's deltas; apply it to their sums (model/sharing.py).
    """

    dims: Dimensions

    def setup(self) -> None:
        d, s = self.dims, self.dims.spec
        self.embeddings = d.family.embeddings(d.embeddings(s.embedding))
        self.discriminator = Encoder(d.discriminator)
        self.discriminator_head = d.family.discriminator_head(
            init_std=d.head_std(d.discriminator), dtype=s.dtype
        )
        if s.tying != "all":
            self.generator = Encoder(d.generator)
        if d.two_embeddings:
            self.generator_embeddings = d.family.embeddings(d.embeddings(d.generator_embedding))
        self.generator_head = d.family.generator_head(
            embedding=d.generator_embedding,
            vocab_size=d.rows,
            init_std=d.head_std(d.generator),
            dtype=s.dtype,
        )

    def generate(
        self, tokens: Tokens, chosen_BxK: jax.Array, noise: Noise | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The generator's (hidden [B, K, E], word table [V, E], bias [V]) at the chosen positions."""
        return self.generator_words(self.generator_hidden(tokens, chosen_BxK, noise))

    def generator_hidden(
        self, tokens: Tokens, chosen_BxK: jax.Array, noise: Noise | None = None
    ) -> jax.Array:
        """The generator's hidden states [B, K, D] at the chosen positions."""
        encoder = self.discriminator if self.dims.spec.tying == "all" else self.generator
        hidden_BxLxD = Backbone(self._generator_embeddings(), encoder)(tokens, noise)
        return gather_positions(hidden_BxLxD, chosen_BxK)

    def generator_words(self, hidden_BxKxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `generate` returns, of these hidden states."""
        hidden_BxKxE, bias_V = self.generator_head(hidden_BxKxD)
        return hidden_BxKxE, self._generator_embeddings().word, bias_V

    def _generator_embeddings(self) -> Any:
        own = self.dims.two_embeddings
        return self.generator_embeddings if own else self.embeddings

    def discriminate(self, tokens: Tokens, noise: Noise | None = None) -> jax.Array:
        """Logits [B, L] float32, positive where a token looks replaced."""
        backbone = Backbone(self.embeddings, self.discriminator)
        return self.discriminator_head(backbone(tokens, noise))

    def __call__(self) -> None:
        """Uses every parameter, for `init`."""
        tokens = Tokens.single()
        self.generate(tokens, tokens.positions)
        self.discriminate(tokens)


class MaskedLM(nn.Module):
    """The full-size encoder with the generator's head: plain masked language modelling."""

    dims: Dimensions

    def setup(self) -> None:
        d, s = self.dims, self.dims.spec
        self.embeddings = d.family.embeddings(d.embeddings(s.embedding))
        self.encoder = Encoder(d.discriminator)
        self.head = d.family.generator_head(
            embedding=s.embedding,
            vocab_size=d.rows,
            init_std=d.head_std(d.discriminator),
            dtype=s.dtype,
        )

    def generate(
        self, tokens: Tokens, chosen_BxK: jax.Array, noise: Noise | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(hidden [B, K, E], word table [V, E], bias [V]) at the chosen positions."""
        return self.words(gather_positions(self.hidden(tokens, noise), chosen_BxK))

    def hidden(self, tokens: Tokens, noise: Noise | None = None) -> jax.Array:
        """The encoder's hidden states [B, L, D]."""
        return Backbone(self.embeddings, self.encoder)(tokens, noise)

    def words(self, hidden_BxKxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `generate` returns, of these hidden states."""
        hidden_BxKxE, bias_V = self.head(hidden_BxKxD)
        return hidden_BxKxE, self.embeddings.word, bias_V

    def __call__(self) -> None:
        """Uses every parameter, for `init`."""
        tokens = Tokens.single()
        self.generate(tokens, tokens.positions)


def gather_positions(h_BxLxD: jax.Array, chosen_BxK: jax.Array) -> jax.Array:
    """The chosen rows of every sequence, [B, K, D]."""
    return jnp.take_along_axis(h_BxLxD, chosen_BxK[..., None], axis=1)


def count_parameters(params: Params, dims: Dimensions) -> int:
    """Trainable parameters without the padding of the vocabulary."""
    padding = dims.padded_rows - dims.rows
    total = 0
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        total += x.size
        if is_vocabulary(tuple(p.key for p in path)):
            total -= padding * (x.size // x.shape[0])
    return total


def is_vocabulary(path: tuple[str, ...]) -> bool:
    """Whether the parameter at this path has a row per (padded) vocabulary id."""
    return path[-1] == "word" or path in (("generator_head", "bias"), ("head", "bias"))
