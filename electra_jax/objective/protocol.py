"""What pretraining asks of an objective, and what most objectives answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted
from electra_jax.learn import learner
from electra_jax.learn.learner import Batch, Context, Learner, Params, Sums
from electra_jax.model import flops
from electra_jax.model.electra import Dimensions
from electra_jax.objective.export import ENCODER, Export
from electra_jax.objective.losses import ratio
from electra_jax.ops import noise as noise_ops
from electra_jax.text.special import SpecialIds

PerToken = dict[str, jax.Array]  # name -> [B, L]; `valid` (bool) says which places count


class Metric(NamedTuple):
    """A metric that people watch. Where counting tokens has a figure beside it, `higher` says what is better."""

    name: str
    form: str  # in the progress line, such as "mlm {:.3f}"
    higher: bool | None = None


class Origin(NamedTuple):
    """The masked LM of another workdir that an objective's parameters begin with."""

    option: str  # that names the workdir, such as "objective.generator_run"
    folder: str  # of a run, or of an import
    takes: Sequence[Export]  # the places that it is copied to; without a head, what comes before it


# What each member is, for who writes one: the words of the errors.
MEMBERS = {
    "init": "(key) -> parameters: nested dicts of float32 arrays",
    "carried": "(params) -> a dict of arrays",
    "parts": "(whole) -> a list of Parts that have every parameter",
    "prepare": "(batch, keys) -> the batch with all it had, and arrays with rows along their first axis",
    "totals": "(batch) -> a dict of scalars",
    "loss": "(context) -> (a float32 scalar, a dict of metric sums over rows)",
    "carry": "(context, params, sums) -> the tree of `carried`",
    "evaluate": "(context) -> (a dict of metric sums, a dict of arrays [B, L]; where there are any, a bool `valid`)",
    "metrics": "(sums) -> a dict of floats",
    "rank_metrics": "(tokens, counted) -> a dict of floats",
    "beside_counting": "(found) -> a dict of floats",
    "flops": "(length) -> a number above 0",
    "exports": "() -> a list of Exports, whose paths are parameters",
    "scores": "(params, batch) -> an array [B, L] or None",
    "shown": "a list of Metrics",
    "settings": "a list of names",
}


class Objective(Learner, Protocol):
    """What pretraining learns: a learner that owns all that depends on it."""

    shown: ClassVar[Sequence[Metric]]  # in this order; the first is the main one
    settings: ClassVar[Sequence[str]]  # options that a reader of the model card asks for first

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """Metric sums without dropout, and arrays by token for `rank_metrics`."""
        ...

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metric values from sums, on the host."""
        ...

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """Metric values that need every token at once: arrays [n] of the valid ones of all held-out rows.

        `counted`: what counting tokens knows of the training text, for a figure beside the model's.
        """
        ...

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """What counting tokens reaches at this objective, as `<metric>_<model>`.

        `found`: by model (unigram, bigram) the loss in nats and the accuracy of guessing a hidden token.
        """
        ...

    def flops(self, length: int) -> float:
        """Useful forward FLOPs of a row of this length, from the blocks of `model/flops.py`."""
        ...

    def exports(self) -> Sequence[Export]:
        """The models that it leaves behind; fine-tuning begins with the encoder of the first."""
        ...

    def scores(self, params: Params, batch: Batch) -> jax.Array | None:
        """A score [B, L] for every token of a text as it is; None where the objective has none."""
        ...

    def origin(self) -> Origin | None:
        """What its parameters begin with where some are another run's."""
        ...


@dataclass(frozen=True)
class Defaults(learner.Defaults):
    """What most objectives answer: an encoder of the full size, and a loss that is a mean over `totals`' `count`."""

    options: Any  # the module's Options, from the config section `objective`
    dims: Dimensions
    special: SpecialIds
    seq_len: int

    shown: ClassVar[Sequence[Metric]] = (Metric("loss", "loss {:.4g}"),)
    settings: ClassVar[Sequence[str]] = ()

    def totals(self, batch: Batch) -> Sums:
        """The number of tokens that are not padding."""
        return {"count": jnp.sum(batch["docs"] > 0).astype(jnp.float32)}

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """The sums of the loss, taken without a key of dropout; nothing by token."""
        return self.loss(without_dropout(context))[1], {}  # type: ignore[attr-defined]

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Every sum divided by the sum `count`."""
        return {
            name: ratio(x, sums["count"])
            for name, x in sums.items()
            if name != "count" and not x.ndim
        }

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """Nothing."""
        return {}

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Nothing."""
        return {}

    def flops(self, length: int) -> float:
        """Those of the full-size encoder."""
        return flops.encoder(self.dims.discriminator, length)

    def exports(self) -> Sequence[Export]:
        """The encoder alone."""
        what = "an ELECTRA-shaped encoder"
        return (Export(name="encoder", hf_class=ENCODER, spec=self.dims.discriminator, what=what),)

    def scores(self, params: Params, batch: Batch) -> jax.Array | None:
        """None."""
        return None

    def origin(self) -> Origin | None:
        """Nowhere: its parameters begin fresh."""
        return None


def dropout(context: Context, site: int | None = None) -> noise_ops.Noise | None:
    """The noise of dropout in these rows, None in evaluation; networks of other sites drop independently."""
    if "dropout" not in context.keys:
        return None
    key = context.keys["dropout"]
    if site is not None:
        key = jax.random.fold_in(key, site)
    return noise_ops.for_rows(key, context.batch["rows"])


def without_dropout(context: Context) -> Context:
    """The context without a key of dropout: that of an evaluation."""
    keys = {name: key for name, key in context.keys.items() if name != "dropout"}
    return context._replace(keys=keys)


def origin_of(objective: Any) -> Origin | None:
    """What the parameters of an objective begin with; a user's may not say."""
    asked = getattr(objective, "origin", None)
    return asked() if asked else None
