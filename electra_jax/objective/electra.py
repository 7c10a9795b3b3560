"""ELECTRA (Clark et al., 2020): a small generator fills masks, a discriminator finds what it replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted
from electra_jax.learn.learner import Batch, Context, Keys, Sums
from electra_jax.learn.parts import Part
from electra_jax.model import flops, sharing
from electra_jax.model.electra import Dimensions, Params
from electra_jax.objective import corrupt, losses, pair
from electra_jax.objective.export import DETECTION, MASKED_LM, Export
from electra_jax.objective.protocol import Defaults, Metric, PerToken, dropout, without_dropout
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import SAMPLERS, HeadOutput
from electra_jax.quantities import Range
from electra_jax.spec import UserError, check_choice

RANGES = corrupt.RANGES | {
    "temperature": Range(0, 1_000, above=True),
    "generator_weight": Range(0, 1e6),
    "discriminator_weight": Range(0, 1e6),
    "discriminator_rate": Range(0, 1_000, above=True),
    "discriminator_clip": Range(0, 1e9),
}


@dataclass(frozen=True, kw_only=True)
class Options(corrupt.MaskOptions):
    """The config section `objective` of ELECTRA."""

    temperature: float  # temperature of the generator's samples
    disallow_correct: bool  # never sample the true token
    uniform_generator: bool  # ablation: replacements uniform over the vocabulary, no generator loss
    generator_weight: float  # weight of the masked-LM loss in the sum; 1 in the paper
    discriminator_weight: float  # weight of the detection loss in the sum, lambda; 50 in the paper
    # Runs from before there were two samplers name none.
    sampler: str = "gumbel"  # how samples are drawn: gumbel | grouped, which has less noise
    # Runs from before model.tying=gdes have neither.
    discriminator_rate: float = (
        1.0  # tying=gdes: its learning rate, as a ratio of the run's, which is the generator's
    )
    discriminator_clip: float = 0.0  # tying=gdes: its clip norm; 0: optim.clip_norm

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sampler", self.sampler, tuple(SAMPLERS))
        if self.temperature <= 0:
            raise UserError(f"objective.temperature={self.temperature} must be above 0")

    def of_discriminator(self, whole: Part) -> Part:
        """How the discriminator's parameters are descended in a part of their own."""
        assert whole.optim is not None
        clip, ratio = self.discriminator_clip or whole.optim.clip_norm, self.discriminator_rate
        return replace(
            whole,
            optim=replace(whole.optim, clip_norm=clip),
            factor=None if ratio == 1.0 else lambda path: ratio,
        )


@dataclass(frozen=True)
class ElectraObjective(Defaults):
    """The joint objective, generator_weight x MLM + discriminator_weight x replaced-token detection."""

    options: Options

    def __post_init__(self) -> None:
        for name in ("discriminator_rate", "discriminator_clip"):
            value, usual = getattr(self.options, name), getattr(Options, name)
            if value != usual and not pair.is_disentangled(self.dims):
                raise UserError(
                    f"objective.{name}={value} needs a discriminator without the generator's gradient: set "
                    f"--config.model.tying=gdes (it is {self.dims.spec.tying}) or leave it at {usual:g}"
                )

    shown: ClassVar[Sequence[Metric]] = (
        Metric("loss", "loss {:.4g}"),
        Metric("mlm_loss", "mlm {:.3f}", higher=False),
        Metric("disc_loss", "disc {:.4f}"),
        Metric("disc_auc", "auc {:.3f}", higher=True),
    )
    settings: ClassVar[Sequence[str]] = ("mask_prob", "generator_weight", "discriminator_weight")

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters of both networks; float32."""
        return pair.init(self.dims, key)

    def parts(self, whole: Part) -> Sequence[Part]:
        """One; with disentangled embeddings two, each with a gradient of its own loss alone."""
        if not pair.is_disentangled(self.dims):
            return (whole,)
        return pair.parts(whole, self.options.of_discriminator(whole))

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K] and masked [B, L]."""
        return self.options.corrupt(batch, keys["mask"], self.special, self.dims.vocab_size)

    def totals(self, batch: Batch) -> Sums:
        """Chosen positions and tokens that are not padding: the two denominators of the loss."""
        return losses.totals(batch)

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The joint loss with dropout, from one forward pass of each network (the samples come from that pass too)."""
        sums, _ = self._forward(context)
        mlm = sums["mlm_loss"] / (context.totals["masked"] + losses.EPSILON)
        detection = sums["disc_loss"] / (context.totals["valid"] + losses.EPSILON)
        return (
            self.options.generator_weight * mlm + self.options.discriminator_weight * detection,
            sums,
        )

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """The same without dropout; scores for the rank-exact AUC."""
        return self._forward(without_dropout(context))

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The original's evaluation list, the replaced fraction and the generator's entropy."""
        values = losses.generator_metrics(sums) | losses.detection_metrics(sums)
        values["loss"] = (
            self.options.generator_weight * values["mlm_loss"]
            + self.options.discriminator_weight * values["disc_loss"]
        )
        return values

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """The rank-exact AUC of the discriminator, and that of a low unigram probability as a sign of replacement."""
        return losses.detection_ranks(tokens, counted)

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Masked-LM loss and accuracy; nothing where no masked LM is learned (uniform_generator)."""
        if self.options.uniform_generator:
            return {}
        return corrupt.beside_counting(self.options, found)

    def flops(self, length: int) -> float:
        """Those of both networks; of the discriminator where replacements are not a generator's."""
        dims = self.dims
        total = flops.encoder(dims.discriminator, length)
        total += length * flops.detection_head(dims.spec.width)
        if self.options.uniform_generator:
            return total
        slots = self.options.slots(length)
        return total + pair.generator_flops(dims, length, slots)

    def exports(self) -> Sequence[Export]:
        """Both networks; an ablation's generator has learned nothing."""
        return exports(self.dims, generator_trained=not self.options.uniform_generator)

    def scores(self, params: Params, batch: Batch) -> jax.Array:
        """Logits that a token was replaced."""
        return pair.detect(self.dims, params, batch, batch["ids"])

    def _forward(self, context: Context) -> tuple[Sums, PerToken]:
        """(metric sums, arrays by token); with dropout where the context has a key of it."""
        return pair.forward(self.dims, context, self._generate(context))

    def _generate(self, context: Context) -> HeadOutput:
        o = self.options
        if o.uniform_generator:
            return _uniform(context, self.dims.vocab_size)
        return pair.generate(
            self.dims,
            context,
            dropout(context, pair.GENERATOR),
            temperature=o.temperature,
            disallow_correct=o.disallow_correct,
            sampler=o.sampler,
        )


def _uniform(context: Context, vocab_size: int) -> HeadOutput:
    """The generator of the ablation: every id equally likely, loss the constant ln V, no parameters."""
    noise, targets_BxK = pair.sample_noise(context), pair.targets(context.batch)
    weights_BxK = context.batch["weights"]
    sampled_BxK = noise_ops.integers(noise, noise_ops.count(targets_BxK.shape[1]), vocab_size)
    log_v = float(np.log(vocab_size))
    masked = jnp.sum(weights_BxK)
    return HeadOutput(
        loss=masked * log_v,
        correct=masked / vocab_size,  # the expected accuracy of a guess
        sampled_correct=losses.masked_sum(sampled_BxK == targets_BxK, weights_BxK),
        entropy=masked * log_v,
        sampled_BxK=sampled_BxK,
        log_q_BxK=jnp.full(sampled_BxK.shape, -log_v, jnp.float32),
    )


def exports(dims: Dimensions, generator_trained: bool = True) -> tuple[Export, ...]:
    """The discriminator, which is the one to fine-tune, and the generator."""
    tying = dims.spec.tying
    discriminator = Export(
        name="discriminator",
        hf_class=DETECTION,
        spec=dims.discriminator,
        what="the discriminator of an ELECTRA pair: it tells, for every token, whether it was replaced. It is the "
        "model to fine-tune",
        encoder="discriminator",
        head="discriminator_head",
        added=sharing.TABLES if pair.is_disentangled(dims) else "",
    )
    generator = Export(
        name="generator",
        hf_class=MASKED_LM,
        spec=dims.generator,
        what="the generator of an ELECTRA pair: a small masked language model that proposes the replacements. "
        "Fine-tune the discriminator instead",
        embeddings="generator_embeddings" if dims.two_embeddings else "embeddings",
        encoder="discriminator" if tying == "all" else "generator",
        head="generator_head",
        tying="" if tying == "embeddings" else tying,
        trained=generator_trained,
    )
    return discriminator, generator


def numbers(dims: Dimensions) -> dict[str, Any]:
    """The generator's dimensions; its ratios count by the widths and depths they give."""
    return {
        "model.tying": dims.spec.tying,
        "generator width (model.generator_size)": dims.generator.width,
        "generator depth (model.generator_layers)": dims.generator.layers,
    }


def clashes(section: Mapping[str, Any]) -> list[tuple[Sequence[str], str]]:
    """What options exclude each other: the keys of the section, and a sentence."""
    return losses.no_weight(section, ("generator_weight", "discriminator_weight"))


make = ElectraObjective
