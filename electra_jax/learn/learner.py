"""What one training learns: the contract between the train step and everything that learns with it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax

from electra_jax.learn.parts import Part

Params = dict[str, Any]  # nested dicts of float32 arrays
Batch = dict[str, jax.Array]
Sums = dict[str, jax.Array]  # metric name -> numerator, denominator or histogram, summed over rows
Keys = dict[str, jax.Array]  # use ("mask", "sample", "dropout") -> typed key of one step
Carried = dict[str, Any]  # arrays beside the parameters


class Context(NamedTuple):
    """All that a loss may depend on; `batch` may be a part of the batch that `totals` count."""

    params: Params
    batch: Batch
    totals: Sums
    keys: Keys
    step: jax.Array  # int32, 0-based
    carried: Carried


class Defaults:
    """What most learners answer: one part, nothing carried, nothing that only the whole batch decides."""

    def parts(self, whole: Part) -> Sequence[Part]:
        """All parameters together."""
        return (whole,)

    def carried(self, params: Params) -> Carried:
        """Nothing."""
        return {}

    def carry(self, context: Context, params: Params, sums: Sums) -> Carried:
        """What was carried, as it was."""
        return context.carried

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """The batch as it is."""
        return batch


class Learner(Protocol):
    """Pure functions of arrays; nothing here depends on how rows are split over devices or micro-batches.

    A batch holds arrays with rows along their first axis, `rows` (int32 [B], the global row numbers that address the
    noise) and in training `step` (int32 [B], the number of the step, 0-based, the same for every row).
    """

    def parts(self, whole: Part) -> Sequence[Part]:
        """The parts that the parameters are descended in. `whole` is what the run's options make of all of them."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32."""
        ...

    def carried(self, params: Params) -> Carried:
        """What is kept beside fresh parameters (a frozen generator, an average, a baseline), also in checkpoints."""
        ...

    def carry(self, context: Context, params: Params, sums: Sums) -> Carried:
        """What is carried into the next step. `params` are those after the step; `context` holds the whole batch."""
        ...

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """The batch with what only the whole of it decides."""
        ...

    def totals(self, batch: Batch) -> Sums:
        """Denominators of the loss over all rows: the gradients of micro-batches add up to that of the batch."""
        ...

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The share of these rows in the loss of the whole batch, and metric sums."""
        ...
