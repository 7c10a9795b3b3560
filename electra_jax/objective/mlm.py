"""Plain masked language modelling on the full-size network: the baseline ELECTRA is measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.learn.learner import Batch, Context, Defaults, Keys, Sums
from electra_jax.model import initial
from electra_jax.model.electra import Dimensions, MaskedLM, ModelSpec, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, losses
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import vocabulary_head
from electra_jax.spec import from_config
from electra_jax.text.tokenizer import SpecialIds

Options = corrupt.MaskOptions  # the config section `objective`: what is masked, nothing else


@dataclass(frozen=True)
class MlmObjective(Defaults):
    """Masked-LM loss, a mean over the chosen positions of the batch."""

    options: Options
    dims: Dimensions
    special: SpecialIds
    slots: int

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32."""
        return initial.fresh(MaskedLM(self.dims), key)

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Adds chosen, weights [B, K] and masked [B, L]."""
        return self.options.corrupt(
            batch, keys["mask"], self.special, self.dims.vocab_size, self.slots
        )

    def totals(self, batch: Batch) -> Sums:
        """The number of chosen positions."""
        return {"masked": jnp.sum(batch["weights"])}

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The masked-LM loss with dropout."""
        dropout = noise_ops.for_rows(context.keys["dropout"], context.batch["rows"])
        sums = self._forward(context, dropout)
        return sums["mlm_loss"] / (context.totals["masked"] + losses.EPSILON), sums

    def evaluate(self, context: Context) -> tuple[Sums, dict[str, jax.Array]]:
        """Metric sums without dropout; no scores."""
        return self._forward(context, None), {}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The generator's part of the metrics; there is no discriminator."""
        values = losses.generator_metrics(sums)
        return values | {"loss": values["mlm_loss"]}

    def _forward(self, context: Context, dropout: noise_ops.Noise | None) -> Sums:
        params, batch = context.params, context.batch
        hidden_BxKxE, table_VxE, bias_V = MaskedLM(self.dims).apply(
            {"params": params},
            Tokens.of(batch)._replace(ids=batch["masked"]),
            batch["chosen"],
            dropout,
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


def make(
    options: Mapping[str, Any], model: ModelSpec, vocab_size: int, special: SpecialIds, seq_len: int
) -> MlmObjective:
    """The objective from its config section."""
    checked = from_config(Options, options, "objective")
    slots = corrupt.slot_count(checked.mask_prob, seq_len)
    return MlmObjective(checked, Dimensions(model, vocab_size), special, slots)
