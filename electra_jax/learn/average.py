"""An exponential average of the weights, carried beside them by any learner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.learn.learner import Batch, Carried, Context, Keys, Learner, Params, Sums
from electra_jax.learn.parts import Part

AVERAGE, INNER = (
    "average",
    "learner",
)  # of what is carried: the average; what the learner itself carries


@dataclass(frozen=True)
class Averaged:
    """The same learner, with the average of its parameters after each step.

    average <- d average + (1 - d) params, where d is `decay`, and less in the first steps, (1 + step) / (10 + step):
    the fresh parameters that the average begins with are soon forgotten.
    """

    learner: Learner
    decay: float

    def parts(self, whole: Part) -> Sequence[Part]:
        """Those of the learner."""
        return self.learner.parts(whole)

    def init(self, key: jax.Array) -> Params:
        """Those of the learner."""
        return self.learner.init(key)

    def carried(self, params: Params) -> Carried:
        """The parameters themselves, and what the learner carries."""
        # A copy: a step's state is donated, and no array may be in it twice.
        return {AVERAGE: jax.tree.map(jnp.copy, params), INNER: self.learner.carried(params)}

    def carry(self, context: Context, params: Params, sums: Sums) -> Carried:
        """The average with the parameters after the step, and what the learner carries on."""
        step = context.step.astype(jnp.float32)
        new = 1 - jnp.minimum(jnp.float32(self.decay), (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, p: a + new * (p - a), context.carried[AVERAGE], params)
        inner = self.learner.carry(self._inner(context), params, sums)
        return {AVERAGE: average, INNER: inner}

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Those of the learner."""
        return self.learner.prepare(batch, keys)

    def totals(self, batch: Batch) -> Sums:
        """Those of the learner."""
        return self.learner.totals(batch)

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """That of the learner: the average has no part in it."""
        return self.learner.loss(self._inner(context))

    def evaluate(self, context: Context) -> Any:
        """That of the learner, which knows how to be evaluated."""
        return self.learner.evaluate(self._inner(context))  # type: ignore[attr-defined]

    def _inner(self, context: Context) -> Context:
        return context._replace(carried=context.carried[INNER])
