"""Electric (Clark et al., 2020, arXiv:2012.08561): an energy of every token in its context, learned against noise.

The noise distribution q is a two-tower cloze model, trained beside it by maximum likelihood. A share `mask_prob` of the
tokens is replaced by samples of q; the energy E of every token is learned by telling which (noise-contrastive
estimation): the log-odds that token t is noise are E(x)_t + log q(x_t | x without t) + log(p / (1 - p)), p = mask_prob.

Where the paper and the original code differ, this is the code (google-research/electra, run_pretraining.py): the
energy is the discriminator's head (dense, GELU, linear) and not one product w . h; k is mask_prob of the tokens in the
odds, whatever rounding made of it in a row; and the loss is the mean over all tokens but padding, [CLS] and [SEP]
included. Different from the code: chosen positions are distinct (as the paper says), there is no temperature (which the
code would not correct for), and at the ends of a document its towers' outputs are zeros, not those of its other end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted
from electra_jax.learn.learner import Batch, Context, Keys, Sums
from electra_jax.model import flops, initial
from electra_jax.model.electra import Dimensions, Params
from electra_jax.model.tokens import Tokens
from electra_jax.model.towers import Towers
from electra_jax.objective import corrupt, losses, pair
from electra_jax.objective.export import DETECTION, Export
from electra_jax.objective.protocol import Defaults, Metric, PerToken, dropout, without_dropout
from electra_jax.ops.vocabulary import SAMPLERS, vocabulary_slots
from electra_jax.quantities import Range
from electra_jax.spec import check_choice

RANGES = corrupt.RANGES | {
    "generator_weight": Range(0, 1e6),
    "discriminator_weight": Range(0, 1e6),
}
NAME, TYINGS = "electric", ("embeddings", "none")
LEFTWARD = 2  # site of dropout, beside pair.GENERATOR and pair.DISCRIMINATOR
TOWERS = ("generator_rightward", "generator_leftward", "generator_head", "generator_embeddings")


@dataclass(frozen=True, kw_only=True)
class Options(corrupt.MaskOptions):
    """The config section `objective` of Electric; `mask_split` says nothing: every chosen token is replaced."""

    generator_weight: float  # weight of the cloze model's loss in the sum; 1 in the original
    discriminator_weight: float  # weight of the contrastive loss in the sum; 50 in the original
    sampler: str = "gumbel"  # how samples are drawn: gumbel | grouped, which has less noise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sampler", self.sampler, tuple(SAMPLERS))


@dataclass(frozen=True)
class ElectricObjective(Defaults):
    """generator_weight x cloze loss + discriminator_weight x noise-contrastive loss."""

    options: Options

    shown: ClassVar[Sequence[Metric]] = (
        Metric("loss", "loss {:.4g}"),
        Metric("mlm_loss", "cloze {:.3f}", higher=False),
        Metric("disc_loss", "nce {:.4f}"),
        Metric("disc_auc", "auc {:.3f}", higher=True),
    )
    settings: ClassVar[Sequence[str]] = ("mask_prob", "generator_weight", "discriminator_weight")

    def __post_init__(self) -> None:
        pair.check_tying(self.dims, NAME, TYINGS)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters of the two towers and the discriminator; float32."""
        return initial.fresh(Towers(self.dims), key)

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K]: what is replaced."""
        return self.options.corrupt(batch, keys["mask"], self.special, self.dims.vocab_size)

    def totals(self, batch: Batch) -> Sums:
        """Tokens that can be chosen, and tokens that are not padding: the two denominators of the loss."""
        return {
            "candidates": jnp.sum(self._candidates(batch)),
            "valid": jnp.sum(batch["docs"] > 0).astype(jnp.float32),
        }

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The joint loss with dropout, from one forward pass of each network."""
        sums, _ = self._forward(context)
        cloze = sums["mlm_loss"] / (context.totals["candidates"] + losses.EPSILON)
        contrast = sums["disc_loss"] / (context.totals["valid"] + losses.EPSILON)
        o = self.options
        return o.generator_weight * cloze + o.discriminator_weight * contrast, sums

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """The same without dropout; scores for the rank-exact AUC."""
        return self._forward(without_dropout(context))

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The cloze model's by candidate; those of telling noise from text; the mean energies of both."""
        values = losses.generator_metrics(sums) | losses.detection_metrics(sums)
        values["energy_text"] = losses.ratio(sums["energy_text"], sums["valid"] - sums["replaced"])
        values["energy_noise"] = losses.ratio(sums["energy_noise"], sums["replaced"])
        values["loss"] = (
            self.options.generator_weight * values["mlm_loss"]
            + self.options.discriminator_weight * values["disc_loss"]
        )
        return values

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """The rank-exact AUC of telling noise from text, and that of a low unigram probability as a sign of noise."""
        return losses.detection_ranks(tokens, counted)

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """The cloze loss and accuracy: every token is predicted unseen."""
        return corrupt.beside_counting(replace(self.options, mask_split=(1.0, 0.0, 0.0)), found)

    def flops(self, length: int) -> float:
        """Those of both towers, of the vocabulary at every position, and of the discriminator."""
        dims = self.dims
        total = flops.encoder(dims.discriminator, length)
        total += length * flops.detection_head(dims.spec.width)
        word = flops.vocabulary_head(
            2 * dims.generator_width, dims.generator_embedding, dims.vocab_size
        )
        return total + 2 * flops.encoder(dims.generator, length) + length * word

    def exports(self) -> Sequence[Export]:
        """The discriminator, whose logits are energies; transformers has no class for the towers."""
        return exports(self.dims)

    def scores(self, params: Params, batch: Batch) -> jax.Array:
        """Energies: the higher, the less the token fits."""
        return Towers(self.dims).apply(
            {"params": params}, Tokens.of(batch), method=Towers.discriminate
        )

    def _candidates(self, batch: Batch) -> jax.Array:
        """The tokens that can be chosen, float32 [B, L]."""
        return corrupt.candidates(batch["ids"], batch["docs"], self.special).astype(jnp.float32)

    def _forward(self, context: Context) -> tuple[Sums, PerToken]:
        params, batch = context.params, context.batch
        tokens, network = Tokens.of(batch), Towers(self.dims)
        hidden_BxLxE, table_VxE, bias_V = network.apply(
            {"params": params},
            tokens,
            (dropout(context, pair.GENERATOR), dropout(context, LEFTWARD)),
            method=Towers.cloze,
        )
        slots = vocabulary_slots(
            hidden_BxLxE,
            table_VxE,
            bias_V,
            batch["ids"],
            vocab_size=self.dims.vocab_size,
            noise=pair.sample_noise(context),
            sampler=self.options.sampler,
        )
        noise_BxL = corrupt.selected(batch)
        fake_BxL = jnp.where(noise_BxL, slots.sampled, batch["ids"])
        # Of the token that is there, by what is known without it.
        log_q_BxL = jax.lax.stop_gradient(jnp.where(noise_BxL, slots.log_q, -slots.loss))
        energy_BxL = network.apply(
            {"params": params},
            tokens._replace(ids=fake_BxL),
            dropout(context, pair.DISCRIMINATOR),
            method=Towers.discriminate,
        )
        share = jnp.asarray(self.options.budget(batch).share, jnp.float32)
        odds_Bx1 = jnp.log(share / (1 - share)).reshape(-1, 1)
        logit_BxL = energy_BxL + log_q_BxL + odds_Bx1
        valid_BxL, label_BxL = batch["docs"] > 0, noise_BxL.astype(jnp.float32)
        candidate_BxL = self._candidates(batch)
        sums = {
            "mlm_loss": losses.masked_sum(slots.loss, candidate_BxL),
            "mlm_correct": losses.masked_sum(slots.likeliest == batch["ids"], candidate_BxL),
            "sampled_correct": losses.masked_sum(slots.sampled == batch["ids"], candidate_BxL),
            "entropy": losses.masked_sum(jax.lax.stop_gradient(slots.entropy), candidate_BxL),
            "masked": jnp.sum(candidate_BxL),
            "energy_text": losses.masked_sum(energy_BxL, valid_BxL & ~noise_BxL),
            "energy_noise": losses.masked_sum(energy_BxL, noise_BxL),
            **losses.detection_sums(logit_BxL, label_BxL, valid_BxL),
        }
        return sums, {"ids": fake_BxL, "score": logit_BxL, "label": label_BxL, "valid": valid_BxL}


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The discriminator, as a model of a logit a token."""
    return (
        Export(
            name="discriminator",
            hf_class=DETECTION,
            spec=dims.discriminator,
            what="the network of Electric: its logit of a token is an energy, the higher the less the token fits, and "
            "minus the sum over a text's tokens is a pseudo-log-likelihood up to a constant a token. It is the model "
            "to fine-tune",
            encoder="discriminator",
            head="discriminator_head",
            energy=True,
            beside=TOWERS,
        ),
    )


def numbers(dims: Dimensions) -> dict[str, Any]:
    """The towers' dimensions; their ratios count by the widths and depths they give."""
    return {
        "model.tying": dims.spec.tying,
        "towers' width (model.generator_size)": dims.generator.width,
        "towers' depth (model.generator_layers)": dims.generator.layers,
    }


def clashes(section: Mapping[str, Any]) -> list[tuple[Sequence[str], str]]:
    """What options exclude each other: the keys of the section, and a sentence."""
    return losses.no_weight(section, ("generator_weight", "discriminator_weight"))


make = ElectricObjective
