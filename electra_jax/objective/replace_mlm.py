"""Replace MLM: masked language modelling whose masked tokens are a generator's samples in place of [MASK].

An ablation of ELECTRA (Clark et al., 2020, section 3.4): what of its gain is that no [MASK] is seen in pretraining. The
generator is ELECTRA's, trained beside it; the full-size network predicts the chosen tokens from the replaced text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.learn.learner import Batch, Context, Keys, Sums
from electra_jax.model import flops, initial
from electra_jax.model.electra import Dimensions, Electra, MaskedLM, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, electra, losses, mlm, pair
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import Defaults, Metric, dropout
from electra_jax.ops.vocabulary import SAMPLERS, vocabulary_head
from electra_jax.quantities import Range
from electra_jax.spec import check_choice

RANGES = corrupt.RANGES | {"generator_weight": Range(0, 1e6), "main_weight": Range(0, 1e6)}
TYINGS = ("embeddings", "none")


@dataclass(frozen=True, kw_only=True)
class Options(corrupt.MaskOptions):
    """The config section `objective` of a masked LM on replaced text."""

    generator_weight: float  # weight of the generator's masked-LM loss in the sum
    main_weight: float = 1.0  # weight of the full-size network's loss in the sum
    sampler: str = "gumbel"  # how samples are drawn: gumbel | grouped, which has less noise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sampler", self.sampler, tuple(SAMPLERS))


@dataclass(frozen=True)
class ReplaceMlmObjective(Defaults):
    """generator_weight x MLM + main_weight x the loss of the full-size network at the chosen positions."""

    options: Options

    name: ClassVar[str] = "replace_mlm"
    shown: ClassVar[Sequence[Metric]] = (
        Metric("loss", "loss {:.4g}"),
        Metric("mlm_loss", "mlm {:.3f}", higher=False),
        Metric("main_loss", "main {:.4f}"),
    )
    settings: ClassVar[Sequence[str]] = ("mask_prob", "generator_weight", "main_weight")

    def __post_init__(self) -> None:
        pair.check_tying(self.dims, self.name, TYINGS)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters of the generator and the masked LM, which share the embeddings; float32."""
        small = initial.fresh(Electra(self.dims), jax.random.fold_in(key, 1))
        own = {name: x for name, x in small.items() if name.startswith("generator")}
        return initial.fresh(MaskedLM(self.dims), key) | own

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K] and masked [B, L]."""
        return self.options.corrupt(batch, keys["mask"], self.special, self.dims.vocab_size)

    def totals(self, batch: Batch) -> Sums:
        """Chosen positions: the denominator of both losses."""
        masked = jnp.sum(batch["weights"])
        return {"masked": masked, "main": masked}

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The joint loss, with dropout where there is a key of it."""
        generated = pair.generate(
            self.dims, context, dropout(context, pair.GENERATOR), sampler=self.options.sampler
        )
        sums = pair.generator_sums(context.batch, generated)
        sums |= self._main(context, pair.replace(context.batch, generated.sampled_BxK)[0])
        sums["valid"] = jnp.sum(context.batch["docs"] > 0).astype(jnp.float32)
        small = sums["mlm_loss"] / (context.totals["masked"] + losses.EPSILON)
        main = sums["main_loss"] / (context.totals["main"] + losses.EPSILON)
        return self.options.generator_weight * small + self.options.main_weight * main, sums

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The generator's, and loss and accuracy of the full-size network at the chosen positions."""
        values = losses.generator_metrics(sums)
        values["main_loss"] = losses.ratio(sums["main_loss"], sums["main"])
        values["main_accuracy"] = losses.ratio(sums["main_correct"], sums["masked"])
        values["loss"] = (
            self.options.generator_weight * values["mlm_loss"]
            + self.options.main_weight * values["main_loss"]
        )
        return values

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """The generator's loss and accuracy."""
        return corrupt.beside_counting(self.options, found)

    def flops(self, length: int) -> float:
        """Those of both networks, and of the vocabulary where each predicts."""
        slots = self.options.slots(length)
        return pair.generator_flops(self.dims, length, slots) + self._main_flops(length, slots)

    def exports(self) -> Sequence[Export]:
        """The full-size masked LM, and the generator."""
        return exports(self.dims)

    def _main(self, context: Context, fake_BxL: jax.Array) -> Sums:
        """Sums of the full-size network on the replaced text; `main` is what its loss is a mean over."""
        batch = context.batch
        hidden_BxKxE, table_VxE, bias_V = MaskedLM(self.dims).apply(
            {"params": context.params},
            Tokens.of(batch)._replace(ids=fake_BxL),
            batch["chosen"],
            dropout(context, pair.DISCRIMINATOR),
            method=MaskedLM.generate,
        )
        head = vocabulary_head(
            hidden_BxKxE,
            table_VxE,
            bias_V,
            pair.targets(batch),
            batch["weights"],
            vocab_size=self.dims.vocab_size,
            noise=pair.sample_noise(context),
        )
        main = jnp.sum(batch["weights"])
        return {"main_loss": head.loss, "main_correct": head.correct, "main": main}

    def _main_flops(self, length: int, slots: int) -> float:
        spec = self.dims.spec
        word = flops.vocabulary_head(spec.width, spec.embedding, self.dims.vocab_size)
        return flops.encoder(self.dims.discriminator, length) + slots * word


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The full-size masked LM, which is the one to fine-tune, and the generator."""
    model = replace(
        mlm.exports(dims)[0],
        what="an ELECTRA-shaped encoder trained as a masked language model on text in which a generator's samples, not "
        "[MASK], stand in place of tokens",
    )
    generator = replace(
        electra.exports(dims)[1],
        what="a small masked language model that proposed what another one was trained on. Fine-tune that one instead",
    )
    return model, generator


numbers = electra.numbers


def clashes(section: Mapping[str, Any]) -> list[tuple[Sequence[str], str]]:
    """What options exclude each other: the keys of the section, and a sentence."""
    return losses.no_weight(section, ("generator_weight", "main_weight"))


make = ReplaceMlmObjective
