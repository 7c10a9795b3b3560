"""ELECTRA 15%: the discriminator's loss over the chosen positions alone (Clark et al., 2020, section 3.4).

An ablation: how much of what ELECTRA gains comes from learning at every token. All else is objective `electra`.
"""

import jax.numpy as jnp

from electra_jax.learn.learner import Batch, Context, Sums
from electra_jax.objective import corrupt, electra, losses
from electra_jax.objective.protocol import PerToken

RANGES = electra.RANGES
Options = electra.Options
exports, numbers, clashes = electra.exports, electra.numbers, electra.clashes


class Electra15Objective(electra.ElectraObjective):
    """The joint objective whose detection loss is a mean over the chosen positions, and so are its metrics."""

    def totals(self, batch: Batch) -> Sums:
        """Chosen positions: the denominator of both losses."""
        masked = jnp.sum(batch["weights"])
        return {"masked": masked, "valid": masked}

    def _forward(self, context: Context) -> tuple[Sums, PerToken]:
        sums, tokens = super()._forward(context)
        chosen_BxL = corrupt.selected(context.batch)
        detection = losses.detection_sums(tokens["score"], tokens["label"], chosen_BxL)
        return sums | detection, tokens | {"valid": chosen_BxL}


make = Electra15Objective
