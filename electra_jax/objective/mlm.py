"""Plain masked language modelling on the full-size network: the baseline ELECTRA is measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.learn.learner import Batch, Context, Keys, Sums
from electra_jax.model import flops, initial
from electra_jax.model.electra import Dimensions, MaskedLM, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, losses
from electra_jax.objective.export import MASKED_LM, Export
from electra_jax.objective.protocol import Defaults, Metric, dropout
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import vocabulary_head

RANGES = corrupt.RANGES
Options = corrupt.MaskOptions  # the config section `objective`: what is masked, nothing else


@dataclass(frozen=True)
class MlmObjective(Defaults):
    """Masked-LM loss, a mean over the chosen positions of the batch."""

    options: Options

    shown: ClassVar[Sequence[Metric]] = (
        Metric("loss", "loss {:.4g}"),
        Metric("mlm_loss", "mlm {:.3f}", higher=False),
    )
    settings: ClassVar[Sequence[str]] = ("mask_prob",)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32."""
        return initial.fresh(MaskedLM(self.dims), key)

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K] and masked [B, L]."""
        return self.options.corrupt(batch, keys["mask"], self.special, self.dims.vocab_size)

    def totals(self, batch: Batch) -> Sums:
        """The number of chosen positions."""
        return {"masked": jnp.sum(batch["weights"])}

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The masked-LM loss, with dropout where there is a key of it."""
        sums = self._forward(context, dropout(context))
        return sums["mlm_loss"] / (context.totals["masked"] + losses.EPSILON), sums

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The generator's part of the metrics; there is no discriminator."""
        values = losses.generator_metrics(sums)
        return values | {"loss": values["mlm_loss"]}

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Masked-LM loss and accuracy."""
        return corrupt.beside_counting(self.options, found)

    def flops(self, length: int) -> float:
        """Those of the full-size encoder and of the vocabulary at the chosen positions."""
        dims, slots = self.dims, self.options.slots(length)
        word = flops.vocabulary_head(dims.spec.width, dims.spec.embedding, dims.vocab_size)
        return flops.encoder(dims.discriminator, length) + slots * word

    def exports(self) -> Sequence[Export]:
        """The one model."""
        return exports(self.dims)

    def _forward(self, context: Context, noise: noise_ops.Noise | None) -> Sums:
        params, batch = context.params, context.batch
        hidden_BxKxE, table_VxE, bias_V = MaskedLM(self.dims).apply(
            {"params": params},
            Tokens.of(batch)._replace(ids=batch["masked"]),
            batch["chosen"],
            noise,
            method=MaskedLM.generate,
        )
        head = vocabulary_head(
            hidden_BxKxE,
            table_VxE,
            bias_V,
            jnp.take_along_axis(batch["ids"], batch["chosen"], axis=1),
            batch["weights"],
            vocab_size=self.dims.vocab_size,
            noise=noise_ops.for_rows(context.keys["sample"], batch["rows"]),
        )
        return {
            "mlm_loss": head.loss,
            "mlm_correct": head.correct,
            "sampled_correct": head.sampled_correct,
            "entropy": head.entropy,
            "masked": jnp.sum(batch["weights"]),
            "valid": jnp.sum(batch["docs"] > 0).astype(jnp.float32),
        }


def exports(dims: Dimensions) -> tuple[Export, ...]:
    """The one model, a masked LM."""
    return (
        Export(
            name="model",
            hf_class=MASKED_LM,
            spec=dims.discriminator,
            what="an ELECTRA-shaped encoder trained as a masked language model",
            head="head",
        ),
    )


make = MlmObjective
