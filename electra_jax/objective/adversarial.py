"""Adversarial ELECTRA: the generator learns to fool the discriminator, by REINFORCE (Clark et al., 2020, appendix F).

The discriminator learns as in `electra`. The generator has no masked-LM loss: its reward for a sample x at a chosen
position is the discriminator's loss there, R = -log(probability of the right label), under the paper's assumption that
this depends on no other sample. Its gradient is that of -log p(x) x (R - b), with the learned baseline
b = -log sigmoid(w . h), h the generator's hidden state, and w learned by cross-entropy of sigmoid(w . h) with exp(-R).

Where the paper says nothing: the mean over the chosen positions has the weight `generator_weight`; so has the
baseline's loss; the baseline's gradient stops at h. Samples come from p itself, without a temperature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted
from electra_jax.learn.learner import Batch, Context, Keys, Sums
from electra_jax.model import flops
from electra_jax.model.electra import Dimensions, Electra, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, electra, losses, pair
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import Defaults, Metric, PerToken, dropout, without_dropout
from electra_jax.ops.vocabulary import SAMPLERS, vocabulary_slots
from electra_jax.ops.vocabulary.slots import PerSlot
from electra_jax.quantities import Range
from electra_jax.spec import check_choice

RANGES = corrupt.RANGES | {
    "generator_weight": Range(0, 1e6),
    "discriminator_weight": Range(0, 1e6),
}
NAME, TYINGS = "adversarial", ("embeddings", "none")
BASELINE = "generator_baseline"  # its parameters: w


@dataclass(frozen=True, kw_only=True)
class Options(corrupt.MaskOptions):
    """The config section `objective` of adversarial ELECTRA."""

    generator_weight: float  # weight of the REINFORCE loss and of the baseline's in the sum
    discriminator_weight: float  # weight of the detection loss in the sum, lambda
    sampler: str = "gumbel"  # how samples are drawn: gumbel | grouped, which has less noise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sampler", self.sampler, tuple(SAMPLERS))


@dataclass(frozen=True)
class AdversarialObjective(Defaults):
    """generator_weight x (REINFORCE + baseline) + discriminator_weight x replaced-token detection."""

    options: Options

    shown: ClassVar[Sequence[Metric]] = (
        Metric("loss", "loss {:.4g}"),
        Metric("mlm_loss", "mlm {:.3f}", higher=False),
        Metric("reward", "reward {:.3f}"),
        Metric("disc_loss", "disc {:.4f}"),
        Metric("disc_auc", "auc {:.3f}", higher=True),
    )
    settings: ClassVar[Sequence[str]] = ("mask_prob", "generator_weight", "discriminator_weight")

    def __post_init__(self) -> None:
        pair.check_tying(self.dims, NAME, TYINGS)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters of both networks and the baseline; float32."""
        hidden_1xD = jnp.zeros((1, self.dims.generator_width))
        baseline = _baseline().init(jax.random.fold_in(key, 1), hidden_1xD)["params"]
        return pair.init(self.dims, key) | {BASELINE: baseline}

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K] and masked [B, L]."""
        return self.options.corrupt(batch, keys["mask"], self.special, self.dims.vocab_size)

    def totals(self, batch: Batch) -> Sums:
        """Chosen positions and tokens that are not padding: the two denominators of the loss."""
        return losses.totals(batch)

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """A number whose gradient is the three networks'; of the generator it is no measure: see `reward`."""
        sums, _ = self._forward(context)
        masked = context.totals["masked"] + losses.EPSILON
        generator = (sums["policy_loss"] + sums["baseline_loss"]) / masked
        detection = sums["disc_loss"] / (context.totals["valid"] + losses.EPSILON)
        o = self.options
        return o.generator_weight * generator + o.discriminator_weight * detection, sums

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """The same without dropout; scores for the rank-exact AUC."""
        return self._forward(without_dropout(context))

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Those of `electra`, the mean reward and the losses of policy and baseline, by chosen position."""
        values = losses.generator_metrics(sums) | losses.detection_metrics(sums)
        for name in ("reward", "policy_loss", "baseline_loss"):
            values[name] = losses.ratio(sums[name], sums["masked"])
        o = self.options
        generator = values["policy_loss"] + values["baseline_loss"]
        values["loss"] = (
            o.generator_weight * generator + o.discriminator_weight * values["disc_loss"]
        )
        return values

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """The rank-exact AUC of the discriminator, and that of a low unigram probability as a sign of replacement."""
        return losses.detection_ranks(tokens, counted)

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Masked-LM loss and accuracy, which the generator is measured by and does not learn."""
        return corrupt.beside_counting(self.options, found)

    def flops(self, length: int) -> float:
        """Those of both networks."""
        dims = self.dims
        slots = self.options.slots(length)
        total = flops.encoder(dims.discriminator, length)
        total += length * flops.detection_head(dims.spec.width)
        return total + pair.generator_flops(dims, length, slots)

    def exports(self) -> Sequence[Export]:
        """Both networks."""
        return exports(self.dims)

    def scores(self, params: Params, batch: Batch) -> jax.Array:
        """Logits that a token was replaced."""
        return pair.detect(self.dims, params, batch, batch["ids"])

    def _forward(self, context: Context) -> tuple[Sums, PerToken]:
        params, batch, network = context.params, context.batch, Electra(self.dims)
        hidden_BxKxD = network.apply(
            {"params": params},
            Tokens.of(batch)._replace(ids=batch["masked"]),
            batch["chosen"],
            dropout(context, pair.GENERATOR),
            method=Electra.generator_hidden,
        )
        words = network.apply({"params": params}, hidden_BxKxD, method=Electra.generator_words)
        slots = self._vocabulary(context, words, pair.targets(batch))
        fake_BxL, replaced_BxL = pair.replace(batch, slots.sampled)
        logit_BxL = pair.detect(
            self.dims, params, batch, fake_BxL, dropout(context, pair.DISCRIMINATOR)
        )
        right_BxL = losses.binary_cross_entropy(logit_BxL, replaced_BxL)
        reward_BxK = jnp.take_along_axis(jax.lax.stop_gradient(right_BxL), batch["chosen"], axis=1)
        # With the sample for its target, the loss is -log p(sample).
        surprise_BxK = self._vocabulary(context, words, slots.sampled).loss
        score_BxK = _score(params, hidden_BxKxD)
        valid_BxL = batch["docs"] > 0
        sums = self._generator_sums(batch, slots)
        sums |= _policy_sums(batch["weights"], reward_BxK, surprise_BxK, score_BxK)
        sums |= losses.detection_sums(logit_BxL, replaced_BxL, valid_BxL)
        tokens = {"ids": fake_BxL, "score": logit_BxL, "label": replaced_BxL, "valid": valid_BxL}
        return sums, tokens

    def _vocabulary(
        self, context: Context, words: tuple[jax.Array, ...], targets_BxK: jax.Array
    ) -> PerSlot:
        hidden_BxKxE, table_VxE, bias_V = words
        return vocabulary_slots(
            hidden_BxKxE,
            table_VxE,
            bias_V,
            targets_BxK,
            vocab_size=self.dims.vocab_size,
            noise=pair.sample_noise(context),
            sampler=self.options.sampler,
        )

    def _generator_sums(self, batch: Batch, slots: PerSlot) -> Sums:
        """What the generator is measured by and does not learn."""
        targets_BxK, weights_BxK = pair.targets(batch), batch["weights"]
        found = {
            "mlm_loss": slots.loss,
            "mlm_correct": slots.likeliest == targets_BxK,
            "sampled_correct": slots.sampled == targets_BxK,
            "entropy": slots.entropy,
            "masked": jnp.ones_like(weights_BxK),
        }
        return {
            name: jax.lax.stop_gradient(losses.masked_sum(x_BxK, weights_BxK))
            for name, x_BxK in found.items()
        }


def _policy_sums(
    weights_BxK: jax.Array, reward_BxK: jax.Array, surprise_BxK: jax.Array, score_BxK: jax.Array
) -> Sums:
    """Sums of the reward and of the two losses that the generator learns by.

    `surprise` is -log p(sample), `score` the baseline's w . h.
    """
    baseline_BxK = jax.nn.softplus(-score_BxK)
    advantage_BxK = jax.lax.stop_gradient(reward_BxK - baseline_BxK)
    # Cross-entropy of sigmoid(score) with exp(-reward), the probability that was given to the right label.
    entropy_BxK = jax.nn.softplus(score_BxK) - jnp.exp(-reward_BxK) * score_BxK
    return {
        "reward": losses.masked_sum(reward_BxK, weights_BxK),
        "policy_loss": losses.masked_sum(advantage_BxK * surprise_BxK, weights_BxK),
        "baseline_loss": losses.masked_sum(entropy_BxK, weights_BxK),
    }


def _score(params: Params, hidden_BxKxD: jax.Array) -> jax.Array:
    """w . h [B, K]; the gradient stops at h."""
    hidden_BxKxD = jax.lax.stop_gradient(hidden_BxKxD)
    score_BxK: jax.Array = _baseline().apply({"params": params[BASELINE]}, hidden_BxKxD)[..., 0]
    return score_BxK


def _baseline() -> nn.Dense:
    return nn.Dense(
        1, use_bias=False, dtype="float32", kernel_init=nn.initializers.glorot_uniform()
    )


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The discriminator, which is the one to fine-tune, and the generator."""
    discriminator, generator = electra.exports(dims)
    return replace(discriminator, beside=(BASELINE,)), generator


numbers, clashes = electra.numbers, electra.clashes
make = AdversarialObjective
