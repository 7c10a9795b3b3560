"""A task as what the one train step learns: encoder and head, in parts by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from electra_jax.finetune import network, rates
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.network import NetworkSpec
from electra_jax.learn.learner import Batch, Context, Defaults, Params, Sums
from electra_jax.learn.parts import Part


@dataclass(frozen=True, kw_only=True)
class TaskLearner(Defaults):
    """The loss of one task; a network of several tasks has a learner each, over the same parameters."""

    network: NetworkSpec
    task: str
    reduction: str  # of the losses of a batch: mean | sum
    layer_decay: float
    off_by_one: bool
    frozen_layers: int

    def parts(self, whole: Part) -> Sequence[Part]:
        """What learns, by layer-wise rates, and the layers that do not learn."""
        return rates.parts(
            whole,
            layers=self.network.dims.spec.layers,
            decay=self.layer_decay,
            off_by_one=self.off_by_one,
            frozen=self.frozen_layers,
        )

    def init(self, key: jax.Array) -> Params:
        """A fresh encoder and fresh heads of all tasks, float32."""
        return network.init(self.network, key)

    def totals(self, batch: Batch) -> Sums:
        """What a mean divides by."""
        kind = kinds.get(self.network.head(self.task).kind)
        return {"count": jnp.maximum(kind.count(batch), 1.0)}

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The sum of the losses, or their mean over the whole batch."""
        dims, head = self.network.dims.spec, self.network.head(self.task)
        batch, noise = context.batch, None
        if dims.dropout > 0 or dims.attention_dropout > 0 or head.dropout > 0:
            noise = network.dropout_noise(context.keys["dropout"], batch, batch["rows"])
        out = network.apply(self.network, context.params, self.task, batch, noise, training=True)
        total = kinds.get(head.kind).loss(head, out, batch)
        return total if self.reduction == "sum" else total / context.totals["count"], {}
