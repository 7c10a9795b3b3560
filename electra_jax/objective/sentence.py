"""A sentence objective beside any other: whether the two segments of a row follow each other.

`order` (ALBERT; Lan et al., 2020, arXiv:1909.11942): in half of the rows the two segments, which follow each other in
the text, are exchanged. `next` (BERT; Devlin et al., 2019, arXiv:1810.04805): in half of the rows the second segment
is that of another row. Which rows, noise addressed by row decides, before anything is masked. A head on [CLS] of the
encoder that fine-tuning begins with tells, from the same forward pass.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted
from electra_jax.data.source import Prepared
from electra_jax.learn.learner import Batch, Carried, Context, Keys, Params, Sums
from electra_jax.learn.parts import Part
from electra_jax.model import initial
from electra_jax.model.backbone import Encoder
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective import losses
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import Metric, Objective, Origin, PerToken, origin_of
from electra_jax.ops import noise as noise_ops
from electra_jax.quantities import Range
from electra_jax.spec import UserError, check_choice
from electra_jax.text.special import SpecialIds

HEAD = "sentence_head"  # its parameters
_SITE = 64  # of a row's noise of masks; the masks themselves have the first ones
_KEYS = ("sentence_loss", "sentence_correct", "sentence_count")
RANGES = {"sentence_weight": Range(0, 1e6, above=True)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the config section `objective` says of it, whatever the objective."""

    sentence: str = ""  # objective on sentences beside the other: order (ALBERT) | next (BERT)
    sentence_weight: float = 1.0  # weight of its loss in the sum

    def __post_init__(self) -> None:
        if self.sentence:
            check_choice("objective.sentence", self.sentence, tuple(KINDS))
        if self.sentence_weight <= 0:
            raise UserError(
                f"objective.sentence_weight={self.sentence_weight} must be above 0; without a sentence objective set "
                "--config.objective.sentence=''"
            )


class Segments(NamedTuple):
    """[CLS] first [SEP] second [SEP] padding: how long the two segments of each row are, int32 [B]."""

    first: jax.Array
    second: jax.Array  # 0 or less: the row has one segment

    @classmethod
    def of(cls, batch: Batch) -> "Segments":
        """Those of rows of one document, whose second segment, with its [SEP], has type 1."""
        tokens_B = jnp.sum(batch["docs"] > 0, axis=1)
        second_B = jnp.sum((batch["docs"] > 0) & (batch["types"] > 0), axis=1) - 1
        return cls(tokens_B - 3 - second_B, second_B)


def _exchanged(batch: Batch, special: SpecialIds) -> tuple[Batch, jax.Array]:
    """(the rows with their segments exchanged, which rows have two)."""
    own, at_L = Segments.of(batch), jnp.arange(batch["ids"].shape[1])
    # The second segment begins behind [CLS], the first and its [SEP].
    begin_Bx1, second_Bx1 = (own.first + 2)[:, None], own.second[:, None]
    from_BxL = jnp.where(at_L <= second_Bx1, begin_Bx1 + at_L - 1, at_L - second_Bx1 - 1)
    return _written(batch, batch, from_BxL, Segments(own.second, own.first), special), (
        own.second > 0
    )


def _followed(batch: Batch, special: SpecialIds) -> tuple[Batch, jax.Array]:
    """(the rows with the second segment of the row before, which rows have both): the first row has none before it."""
    own, at_L = Segments.of(batch), jnp.arange(batch["ids"].shape[1])
    fields = {name: jnp.roll(batch[name], 1, axis=0) for name in ("ids", "word_starts")}
    others = Segments(*(jnp.roll(x, 1) for x in own))
    room_B = batch["ids"].shape[1] - 3 - own.first
    begin_Bx1 = (others.first - own.first)[:, None]
    first_Bx1 = own.first[:, None]
    source = {
        name: jnp.where(at_L <= first_Bx1, batch[name], _taken(x, at_L + begin_Bx1))
        for name, x in fields.items()
    }
    segments = Segments(own.first, jnp.minimum(others.second, room_B))
    rows_B = jnp.arange(len(batch["ids"]))
    both_B = (own.second > 0) & (others.second > 0) & (segments.second > 0) & (rows_B > 0)
    same_BxL = jnp.broadcast_to(at_L, batch["ids"].shape)
    return _written(batch, source, same_BxL, segments, special), both_B


def _written(
    batch: Batch,
    source: Mapping[str, jax.Array],
    from_BxL: jax.Array,
    segments: Segments,
    special: SpecialIds,
) -> Batch:
    """Rows of these segments, whose tokens are those of `source` at these places."""
    at_L = jnp.arange(batch["ids"].shape[1])
    middle_Bx1 = (1 + segments.first)[:, None]
    last_Bx1 = middle_Bx1 + (1 + segments.second)[:, None]
    sep_BxL = (at_L == middle_Bx1) | (at_L == last_Bx1)
    ids_BxL = jnp.where(sep_BxL, special.sep, _taken(source["ids"], from_BxL))
    starts_BxL = jnp.where(sep_BxL, 1, _taken(source["word_starts"], from_BxL))
    inside_BxL = at_L <= last_Bx1
    return {
        "ids": jnp.where(inside_BxL, jnp.where(at_L == 0, special.cls, ids_BxL), special.pad),
        "types": (inside_BxL & (at_L > middle_Bx1)).astype(jnp.int32),
        "docs": inside_BxL.astype(jnp.int32),
        "word_starts": jnp.where(inside_BxL, jnp.where(at_L == 0, 1, starts_BxL), 0),
    }


def _taken(x_BxL: jax.Array, at_BxL: jax.Array) -> jax.Array:
    inside_BxL = jnp.clip(at_BxL, 0, x_BxL.shape[1] - 1)
    return jnp.take_along_axis(x_BxL, inside_BxL, axis=1)


KINDS: dict[str, Callable[[Batch, SpecialIds], tuple[Batch, jax.Array]]] = {
    "order": _exchanged,
    "next": _followed,
}


class SentenceHead(nn.Module):
    """BERT's: dense -> tanh -> one logit, positive where the segments do not follow each other."""

    init_std: float
    dtype: str

    @nn.compact
    def __call__(self, hidden_BxD: jax.Array) -> jax.Array:
        """Logits [B], float32."""
        normal = initial.truncated_normal(self.init_std)
        width = hidden_BxD.shape[-1]
        dense = nn.Dense(width, dtype=self.dtype, kernel_init=normal, name="dense")
        out = nn.Dense(1, dtype="float32", kernel_init=normal, name="out")
        return out(jnp.tanh(dense(hidden_BxD)))[..., 0]


@dataclass(frozen=True)
class WithSentence:
    """An objective and a sentence objective beside it: loss + sentence_weight x a cross-entropy, a mean over rows."""

    objective: Any  # an Objective
    sentence: Options
    dims: Dimensions
    special: SpecialIds

    @property
    def shown(self) -> Sequence[Metric]:
        """Those of the objective, and the accuracy."""
        return (*self.objective.shown, Metric("sentence_accuracy", "sentence {:.3f}"))

    @property
    def settings(self) -> Sequence[str]:
        """Those of the objective, and its own."""
        return (*self.objective.settings, "sentence", "sentence_weight")

    def parts(self, whole: Part) -> Sequence[Part]:
        """Those of the objective."""
        return self.objective.parts(whole)

    def init(self, key: jax.Array) -> Params:
        """Those of the objective, whose numbers do not change, and the head's."""
        hidden_1xD = jnp.zeros((1, self.dims.spec.width))
        head = initial.fresh(self._head(), jax.random.fold_in(key, _SITE), hidden_1xD)
        return self.objective.init(key) | {HEAD: head}

    def carried(self, params: Params) -> Carried:
        """What the objective carries."""
        return self.objective.carried(_without(params))

    def carry(self, context: Context, params: Params, sums: Sums) -> Carried:
        """What the objective carries on."""
        return self.objective.carry(_inner(context), _without(params), sums)

    def prepare(self, batch: Batch, keys: Keys) -> Batch:
        """Changes half of the rows; adds float32 [B] `apart`, 1 for these, and `asked`, 1 where there was a choice."""
        changed, possible_B = KINDS[self.sentence.sentence](batch, self.special)
        noise = noise_ops.for_rows(keys["mask"], batch["rows"]).at(_SITE)
        coin_B = noise_ops.uniform(noise, noise_ops.count(1))[:, 0] < 0.5
        apart_B = coin_B & possible_B
        batch = batch | {
            name: jnp.where(apart_B[:, None], x, batch[name]) for name, x in changed.items()
        }
        batch |= {
            "apart": apart_B.astype(jnp.float32),
            "asked": possible_B.astype(jnp.float32),
        }
        return self.objective.prepare(batch, keys)

    def totals(self, batch: Batch) -> Sums:
        """Those of the objective, and the rows with a choice."""
        return self.objective.totals(batch) | {"sentence": jnp.sum(batch["asked"])}

    def loss(self, context: Context) -> tuple[jax.Array, Sums]:
        """The sum of both losses, from one forward pass."""
        with self._watched() as seen:
            value, sums = self.objective.loss(_inner(context))
        own = self._sums(context, seen)
        mean = own["sentence_loss"] / (context.totals["sentence"] + losses.EPSILON)
        return value + self.sentence.sentence_weight * mean, sums | own

    def evaluate(self, context: Context) -> tuple[Sums, PerToken]:
        """The objective's, on rows of which half are changed, and the sums of this one."""
        with self._watched() as seen:
            sums, tokens = self.objective.evaluate(_inner(context))
        return sums | self._sums(context, seen), tokens

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The objective's, sentence_loss (nats) and sentence_accuracy; `loss` is the sum of both."""
        values = self.objective.metrics({k: x for k, x in sums.items() if k not in _KEYS})
        count = sums["sentence_count"]
        loss = losses.ratio(sums["sentence_loss"], count)
        if "loss" in values and float(count):
            values = values | {"loss": values["loss"] + self.sentence.sentence_weight * loss}
        return values | {
            "sentence_loss": loss,
            "sentence_accuracy": losses.ratio(sums["sentence_correct"], count),
        }

    def rank_metrics(
        self, tokens: Mapping[str, np.ndarray], counted: Counted | None
    ) -> dict[str, float]:
        """Those of the objective."""
        return self.objective.rank_metrics(tokens, counted)

    def beside_counting(self, found: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Those of the objective."""
        return self.objective.beside_counting(found)

    def flops(self, length: int) -> float:
        """Those of the objective, and of the head at one position."""
        width = self.dims.spec.width
        return self.objective.flops(length) + 2 * width**2 + 2 * width

    def exports(self) -> Sequence[Export]:
        """Those of the objective; the head stays behind."""
        first, *rest = self.objective.exports()
        return (replace(first, beside=(*first.beside, HEAD)), *rest)

    def scores(self, params: Params, batch: Batch) -> jax.Array | None:
        """Those of the objective."""
        return self.objective.scores(_without(params), batch)

    def origin(self) -> Origin | None:
        """That of the objective; a user's may have none."""
        return origin_of(self.objective)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[jax.Array]]:
        """Gathers, while it is traced, what the encoder that fine-tuning begins with has at [CLS], each [B, D]."""
        encoder, seen = tuple(self.objective.exports()[0].encoder.split("/")), list[jax.Array]()

        def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            found = call(*args, **kwargs)
            module = context.module
            if isinstance(module, Encoder) and module.path == encoder:
                seen.append(found[:, 0])
            return found

        with nn.intercept_methods(watch):
            yield seen

    def _sums(self, context: Context, seen: Sequence[jax.Array]) -> Sums:
        if not seen:
            raise UserError(
                f"objective.sentence={self.sentence.sentence}, but this objective does not run the encoder that it "
                "leaves; set --config.objective.sentence=''"
            )
        # Where one network is generator and discriminator, the discriminator comes last.
        logit_B = self._head().apply({"params": context.params[HEAD]}, seen[-1])
        apart_B, asked_B = context.batch["apart"], context.batch["asked"]
        return {
            "sentence_loss": losses.masked_sum(
                losses.binary_cross_entropy(logit_B, apart_B), asked_B
            ),
            "sentence_correct": losses.masked_sum((logit_B > 0) == (apart_B > 0), asked_B),
            "sentence_count": jnp.sum(asked_B),
        }

    def _head(self) -> SentenceHead:
        return SentenceHead(self.dims.spec.init_std, self.dims.spec.dtype)


def _without(params: Params) -> Params:
    return {name: x for name, x in params.items() if name != HEAD}


def _inner(context: Context) -> Context:
    return context._replace(params=_without(context.params))


def beside(objective: Objective, options: Options, dims: Dimensions, special: SpecialIds) -> Any:
    """The objective, with a sentence objective beside it where the options name one."""
    return WithSentence(objective, options, dims, special) if options.sentence else objective


def check_data(section: Mapping[str, Any], model: ModelSpec, data: Prepared) -> None:
    """UserError where a sentence objective is asked of rows without two segments, or of a model without types."""
    kind, made = section.get("sentence"), data.info.get("options", {})
    if not kind:
        return
    if made.get("segments", "pair") != "pair" or made.get("pack"):
        found = "packed rows" if made.get("pack") else f"--segments {made.get('segments')}"
        raise UserError(
            f"objective.sentence={kind} needs rows of two segments of one document, but the data at {data.path} were "
            f"prepared with {found}; prepare them with --segments pair and without --pack"
        )
    if model.has_types and model.types < 2:
        raise UserError(
            f"objective.sentence={kind} needs rows of two segments, for which model.types={model.types} has no types; "
            "set --config.model.types=2"
        )
