"""Replaced-token detection beside a trained generator that stays as it is (Fast-ELECTRA, Dong et al., 2023).

arXiv:2310.07347. The generator is a masked LM of another run. It is not differentiated and has no moments, so it costs
a forward pass. Samples that become harder to tell, as those of a learning generator do, come from a temperature that
falls during the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.learn.learner import Context, Sums
from electra_jax.learn.parts import Part
from electra_jax.model import flops
from electra_jax.model.electra import Dimensions
from electra_jax.objective import corrupt, electra, losses, pair
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import Origin, PerToken
from electra_jax.ops.vocabulary import SAMPLERS, HeadOutput
from electra_jax.quantities import Range
from electra_jax.spec import UserError, check_choice

RANGES = corrupt.RANGES | {
    "temperature": Range(0, 1_000, above=True),
    "temperature_first": Range(0, 1_000),
    "temperature_steps": Range(0, 2**31 - 1),
    "discriminator_weight": Range(0, 1e6),
}
TYINGS = ("none", "gdes")


@dataclass(frozen=True, kw_only=True)
class Options(corrupt.MaskOptions):
    """The config section `objective` of detection beside a trained generator."""

    generator_run: str = ""  # workdir of the run or import whose masked LM is the generator
    temperature: float  # of the generator's samples: what it falls to, and held-out rows have
    temperature_first: float = 2.0  # at step 0; 0: temperature throughout
    temperature_steps: int = 0  # in so many steps what is above `temperature` falls by a factor e
    discriminator_weight: float  # of the detection loss, which is the whole loss
    sampler: str = "gumbel"  # how samples are drawn: gumbel | grouped, which has less noise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sampler", self.sampler, tuple(SAMPLERS))
        if not self.generator_run:
            raise UserError(
                "objective.generator_run names no generator; set it to the workdir of a run that trained a masked LM "
                "(objective.name=mlm or electra), or to one that electra-jax import --generator made"
            )
        if bool(self.temperature_first) != (self.temperature_steps > 0):
            raise UserError(
                f"objective.temperature_first={self.temperature_first} and temperature_steps={self.temperature_steps}: "
                "a temperature that falls needs both; set temperature_steps, such as to a tenth of train.steps, or "
                "both to 0"
            )

    def temperature_at(self, step: jax.Array) -> jax.Array:
        """The temperature of a step: from the first exponentially to the last."""
        if not self.temperature_steps:
            return jnp.float32(self.temperature)
        left = jnp.exp(-step.astype(jnp.float32) / self.temperature_steps)
        return self.temperature + (self.temperature_first - self.temperature) * left


@dataclass(frozen=True)
class FrozenObjective(electra.ElectraObjective):
    """discriminator_weight x replaced-token detection, on samples of a generator that learns nothing."""

    options: Any

    name: ClassVar[str] = "frozen"
    settings: ClassVar[Sequence[str]] = ("mask_prob", "temperature_first", "temperature")

    def __post_init__(self) -> None:
        pair.check_tying(self.dims, self.name, TYINGS)

    def origin(self) -> Origin:
        """The masked LM that the options name, which becomes the generator."""
        takes = (exports(self.dims)[1],)
        return Origin("objective.generator_run", self.options.generator_run, takes)

    def parts(self, whole: Part) -> Sequence[Part]:
        """The generator, without gradient and moments, and all else."""
        generator, rest = pair.parts(whole)
        return changed(generator, optim=None), rest

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The detection loss with dropout in the discriminator alone."""
        sums, _ = self._forward(context)
        detection = sums["disc_loss"] / (context.totals["valid"] + losses.EPSILON)
        return self.options.discriminator_weight * detection, sums

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Those of both networks; the generator's are of the distribution that its samples are drawn from."""
        values = losses.generator_metrics(sums) | losses.detection_metrics(sums)
        values["temperature"] = losses.ratio(sums["temperature"], sums["masked"])
        values["loss"] = self.options.discriminator_weight * values["disc_loss"]
        return values

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Masked-LM loss and accuracy."""
        return corrupt.beside_counting(self.options, found)

    def flops(self, length: int) -> float:
        """Those of both networks; of the generator one of the passes that a step counts for what learns."""
        dims, slots = self.dims, self.options.slots(length)
        total = flops.encoder(dims.discriminator, length)
        total += length * flops.detection_head(dims.spec.width)
        return total + pair.generator_flops(dims, length, slots) / flops.PASSES

    def exports(self) -> Sequence[Export]:
        """Both networks."""
        return exports(self.dims)

    def _forward(self, context: Context) -> tuple[Sums, PerToken]:
        sums, tokens = super()._forward(context)
        return sums | {"temperature": self._temperature(context) * sums["masked"]}, tokens

    def _temperature(self, context: Context) -> jax.Array:
        """That of the step; in an evaluation, which has no dropout, the last."""
        if "dropout" not in context.keys:
            return jnp.float32(self.options.temperature)
        return self.options.temperature_at(context.step)

    def _generate(self, context: Context) -> HeadOutput:
        return pair.generate(
            self.dims,
            context,
            None,
            cooling=1 / self._temperature(context),
            sampler=self.options.sampler,
        )


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The discriminator, which is the one to fine-tune, and the generator as it came."""
    return electra.exports(dims)


numbers = electra.numbers


def clashes(section: Mapping[str, Any]) -> list[tuple[Sequence[str], str]]:
    """What options exclude each other: the keys of the section, and a sentence."""
    return losses.no_weight(section, ("discriminator_weight",))


make = FrozenObjective
