"""Choosing, masking and replacing tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.objective import units
from electra_jax.objective.units import Unit
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.quantities import Range
from electra_jax.spec import UserError
from electra_jax.text.special import SpecialIds

RANGES = {
    "mask_prob": Range(0, 1, above=True, below=True),
    "mask_split": Range(0, 1),
    "mask_prob_first": Range(0, 1, below=True),
    "mask_prob_steps": Range(0, 2**31 - 1),
    "span_max": Range(0, units.MOST),
}


class Budget(NamedTuple):
    """How many positions of a row are chosen."""

    share: float | jax.Array  # of its tokens; one number, or a number of each row
    most: int | jax.Array  # and no more than this


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """The config section `objective`: what is masked, shared by the objectives that mask."""

    mask_prob: float  # share of the tokens that are chosen for prediction
    # (0.85, 0.15, 0) in the original.
    mask_split: tuple[float, float, float]  # shares of these: [MASK], unchanged, a random token
    whole_word: bool  # choose all tokens of a word together
    mask_prob_first: float = 0.0  # share at step 0, from which it goes to mask_prob; 0: mask_prob
    mask_prob_steps: int = 0  # steps until the share is mask_prob, along a line
    masking: str = "tokens"  # chosen together: tokens | spans (SpanBERT's) | ngrams (ALBERT's)
    span_max: int = 0  # longest span, in words with whole_word, else tokens; 0: spans 10, ngrams 3

    def __post_init__(self) -> None:
        if not 0 < self.mask_prob < 1:
            raise UserError(f"objective.mask_prob={self.mask_prob} must be between 0 and 1")
        if (
            len(self.mask_split) != 3
            or min(self.mask_split) < 0
            or abs(sum(self.mask_split) - 1) > 1e-6
        ):
            raise UserError(
                f"objective.mask_split={self.mask_split} must be three shares ([MASK], unchanged, random) that add to 1"
            )
        if not 0 <= self.mask_prob_first < 1:
            raise UserError(f"objective.mask_prob_first={self.mask_prob_first} must be in [0, 1)")
        if bool(self.mask_prob_first) != (self.mask_prob_steps > 0):
            raise UserError(
                f"objective.mask_prob_first={self.mask_prob_first} and mask_prob_steps={self.mask_prob_steps}: a rate "
                "that changes needs both, the first share and the steps until it is mask_prob"
            )
        units.of(self.masking, self.span_max, self.whole_word)

    def slots(self, seq_len: int) -> int:
        """Prediction slots of a row: those of the highest share that the run has, so that shapes do not change."""
        return slot_count(max(self.mask_prob, self.mask_prob_first), seq_len)

    def budget(self, batch: Mapping[str, jax.Array]) -> Budget:
        """How many are chosen at the step of this batch; in evaluation, which has none, by mask_prob."""
        length = batch["ids"].shape[1]
        if not self.mask_prob_steps or "step" not in batch:
            return Budget(self.mask_prob, slot_count(self.mask_prob, length))
        over_B = batch["step"].astype(jnp.float32) / self.mask_prob_steps
        share_B = self.mask_prob + (self.mask_prob_first - self.mask_prob) * jnp.maximum(
            0, 1 - over_B
        )
        # A whole number that float32 has just missed counts.
        most_B = jnp.floor((share_B + 0.005) * length + 1e-3).astype(jnp.int32)
        return Budget(share_B, jnp.clip(most_B, 1, self.slots(length)))

    def corrupt(
        self,
        batch: dict[str, jax.Array],
        key: jax.Array,
        special: SpecialIds,
        vocab_size: int,
    ) -> dict[str, jax.Array]:
        """The batch with chosen int32 [B, K], weights float32 [B, K] and masked int32 [B, L]; K is `slots` of L."""
        noise = noise_ops.for_rows(key, batch["rows"])
        chosen_BxK, weights_BxK = choose(
            noise.at(0),
            batch["ids"],
            batch["docs"],
            batch["word_starts"],
            special,
            self.budget(batch),
            self.slots(batch["ids"].shape[1]),
            units.of(self.masking, self.span_max, self.whole_word),
        )
        masked_BxL = mask(
            noise.at(1), batch["ids"], chosen_BxK, weights_BxK, self.mask_split, special, vocab_size
        )
        return batch | {"chosen": chosen_BxK, "weights": weights_BxK, "masked": masked_BxL}


def beside_counting(
    options: MaskOptions, found: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """What counting tokens reaches at the chosen positions, as mlm_loss_unigram, ...; `found` as in the protocol."""
    guessed = {model: guess(*figures, options.mask_split) for model, figures in found.items()}
    return {
        f"{figure}_{model}": guessed[model][number]
        for number, figure in enumerate(("mlm_loss", "mlm_accuracy"))
        for model in found
    }


def guess(loss: float, accuracy: float, mask_split: Sequence[float]) -> tuple[float, float]:
    """(loss, accuracy) at the chosen positions of who guesses with these what is hidden, and copies what is shown.

    `mask_split` are the shares that are masked, shown and replaced at random. Who sees a token cannot tell the last
    two apart, and trusts it as far as their shares allow.
    """
    masked, shown, random = mask_split
    if not shown:
        return loss, accuracy
    trust = shown / (shown + random)
    doubt = random * (loss - np.log(1 - trust)) if random else 0.0
    copied = shown if trust >= accuracy else (shown + random) * accuracy
    return float(masked * loss - shown * np.log(trust) + doubt), masked * accuracy + copied


def slot_count(mask_prob: float, seq_len: int) -> int:
    """Prediction slots of a row, the original's int((mask_prob + 0.005) * L): 19 at 15% of 128, 79 at 512."""
    return max(1, int((mask_prob + 0.005) * seq_len))


def choose(
    noise: Noise,
    ids_BxL: jax.Array,
    docs_BxL: jax.Array,
    word_starts_BxL: jax.Array,
    special: SpecialIds,
    budget: Budget,
    slots: int,
    unit: Unit,
) -> tuple[jax.Array, jax.Array]:
    """Positions to predict, int32 [B, K] and distinct, and their weights, float32 [B, K] of 0 and 1; K is `slots`.

    A row of n tokens (specials included) gets clip(round(share * n), 1, most) positions, uniformly among the
    tokens other than [CLS], [SEP], [MASK] and padding. The original draws with replacement; we do not (its author
    calls that the better choice). Where the unit has groups, they are taken whole in random order, each that
    still fits, as BERT's whole-word masking does; a row may then get a few positions fewer.
    """
    length_B = jnp.sum(docs_BxL > 0, axis=1).astype(jnp.float32)
    wanted_B = jnp.clip(jnp.round(budget.share * length_B), 1, budget.most).astype(jnp.int32)
    candidate_BxL = candidates(ids_BxL, docs_BxL, special)
    score_BxL = noise_ops.uniform(noise, noise_ops.count(ids_BxL.shape[1]))
    group_BxL = unit.groups(noise, candidate_BxL, word_starts_BxL)
    if group_BxL is not None:
        score_BxL = jnp.take_along_axis(
            score_BxL, jnp.minimum(group_BxL, ids_BxL.shape[1] - 1), axis=1
        )
    # A full sort: top_k over batch-sharded scores makes the CPU partitioner gather them all.
    order_BxL = jnp.argsort(jnp.where(candidate_BxL, score_BxL, 2.0), axis=1, stable=True)
    if group_BxL is not None:
        group_BxL = jnp.where(candidate_BxL, group_BxL, 0)
        taken_BxL = _groups_that_fit(jnp.take_along_axis(group_BxL, order_BxL, axis=1), wanted_B)
        order_BxL = jnp.take_along_axis(
            order_BxL, jnp.argsort(~taken_BxL, axis=1, stable=True), axis=1
        )
        count_B = jnp.sum(taken_BxL, axis=1)
    else:
        count_B = jnp.minimum(wanted_B, jnp.sum(candidate_BxL, axis=1))
    weights_BxK = (jnp.arange(slots) < count_B[:, None]).astype(jnp.float32)
    return order_BxL[:, :slots].astype(jnp.int32), weights_BxK


def candidates(ids_BxL: jax.Array, docs_BxL: jax.Array, special: SpecialIds) -> jax.Array:
    """The tokens that can be chosen, bool [B, L]: all but [CLS], [SEP], [MASK] and padding."""
    candidate_BxL = docs_BxL > 0
    for forbidden in (special.cls, special.sep, special.mask, special.pad):
        candidate_BxL &= ids_BxL != forbidden
    return candidate_BxL


def _groups_that_fit(group_BxL: jax.Array, wanted_B: jax.Array) -> jax.Array:
    """Goes through tokens by group (0: no candidate) and takes each group that still fits, bool [B, L]."""
    length = group_BxL.shape[1]
    at_L = jnp.arange(length)
    first_BxL = jnp.diff(group_BxL, axis=1, prepend=-1) != 0
    start_BxL = jax.lax.cummax(jnp.where(first_BxL, at_L, 0), axis=1)
    next_BxL = jnp.concatenate(
        [jnp.where(first_BxL, at_L, length)[:, 1:], jnp.full_like(group_BxL[:, :1], length)], 1
    )
    end_BxL = jax.lax.cummin(next_BxL, axis=1, reverse=True)
    size_BxL = jnp.where(first_BxL & (group_BxL > 0), end_BxL - at_L, 0)

    def take(room_B: jax.Array, size_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        fits_B = (size_B > 0) & (size_B <= room_B)
        return room_B - jnp.where(fits_B, size_B, 0), fits_B

    _, fits_LxB = jax.lax.scan(take, wanted_B, size_BxL.T)
    return jnp.take_along_axis(fits_LxB.T, start_BxL, axis=1)


def mask(
    noise: Noise,
    ids_BxL: jax.Array,
    chosen_BxK: jax.Array,
    weights_BxK: jax.Array,
    split: tuple[float, float, float],
    special: SpecialIds,
    vocab_size: int,
) -> jax.Array:
    """The generator's input [B, L]: chosen tokens become [MASK], stay, or become a uniform random id, by `split`.

    The original's split is (0.85, 0.15, 0), in its plain-MLM mode too.
    """
    to_mask, to_keep, _ = split
    slots_K = noise_ops.count(chosen_BxK.shape[1])
    draw_BxK = noise_ops.uniform(noise.at(0), slots_K)
    old_BxK = jnp.take_along_axis(ids_BxL, chosen_BxK, axis=1)
    new_BxK = jnp.where(draw_BxK < np.float32(to_mask), special.mask, old_BxK)
    if to_mask + to_keep < 1:
        random_BxK = noise_ops.integers(noise.at(1), slots_K, vocab_size)
        new_BxK = jnp.where(draw_BxK >= np.float32(to_mask + to_keep), random_BxK, new_BxK)
    return splice(ids_BxL, chosen_BxK, weights_BxK, new_BxK)


def selected(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Where the chosen positions of weight 1 are, bool [B, L]."""
    none_BxL, chosen_BxK = jnp.zeros_like(batch["ids"]), batch["chosen"]
    return splice(none_BxL, chosen_BxK, batch["weights"], jnp.ones_like(chosen_BxK)) > 0


def splice(
    ids_BxL: jax.Array, chosen_BxK: jax.Array, weights_BxK: jax.Array, new_BxK: jax.Array
) -> jax.Array:
    """ids with `new` written at the chosen positions of weight 1; positions within a row must be distinct."""
    old_BxK = jnp.take_along_axis(ids_BxL, chosen_BxK, axis=1)
    write_BxK = jnp.where(weights_BxK > 0, new_BxK, old_BxK).astype(ids_BxL.dtype)
    return jax.vmap(lambda ids_L, at_K, new_K: ids_L.at[at_K].set(new_K, unique_indices=True))(
        ids_BxL, chosen_BxK, write_BxK
    )
