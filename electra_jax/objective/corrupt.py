"""Choosing, masking and replacing tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.quantities import Range
from electra_jax.spec import UserError
from electra_jax.text.special import SpecialIds

RANGES = {"mask_prob": Range(0, 1, above=True, below=True), "mask_split": Range(0, 1)}


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """The config section `objective`: what is masked, shared by the objectives that mask."""

    mask_prob: float  # share of the tokens that are chosen for prediction
    # (0.85, 0.15, 0) in the original.
    mask_split: tuple[float, float, float]  # shares of these: [MASK], unchanged, a random token
    whole_word: bool  # choose all tokens of a word together

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

    def corrupt(
        self,
        batch: dict[str, jax.Array],
        key: jax.Array,
        special: SpecialIds,
        vocab_size: int,
        slots: int,
    ) -> dict[str, jax.Array]:
        """The batch with chosen int32 [B, K], weights float32 [B, K] and masked int32 [B, L]."""
        noise = noise_ops.for_rows(key, batch["rows"])
        chosen_BxK, weights_BxK = choose(
            noise.at(0),
            batch["ids"],
            batch["docs"],
            batch["word_starts"],
            special,
            self.mask_prob,
            slots,
            self.whole_word,
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
    mask_prob: float,
    slots: int,
    whole_word: bool,
) -> tuple[jax.Array, jax.Array]:
    """Positions to predict, int32 [B, K] and distinct, and their weights, float32 [B, K] of 0 and 1.

    A row of n tokens (specials included) gets clip(round(mask_prob * n), 1, slots) positions, uniformly among the
    tokens other than [CLS], [SEP], [MASK] and padding. The original draws with replacement; we do not (its author
    calls that the better choice). With `whole_word`, words are taken whole in random order, each that
    still fits, as BERT's whole-word masking does; a row may then get a few positions fewer.
    """
    length_B = jnp.sum(docs_BxL > 0, axis=1)
    wanted_B = jnp.clip(jnp.round(mask_prob * length_B.astype(jnp.float32)), 1, slots).astype(
        jnp.int32
    )
    candidate_BxL = docs_BxL > 0
    for forbidden in (special.cls, special.sep, special.mask, special.pad):
        candidate_BxL &= ids_BxL != forbidden
    score_BxL = noise_ops.uniform(noise, noise_ops.count(ids_BxL.shape[1]))
    if whole_word:
        # A special is a word of its own, so no word runs across one.
        word_BxL = jnp.cumsum((word_starts_BxL > 0) | ~candidate_BxL, axis=1)
        score_BxL = jnp.take_along_axis(
            score_BxL, jnp.minimum(word_BxL, ids_BxL.shape[1] - 1), axis=1
        )
    # A full sort: top_k over batch-sharded scores makes the CPU partitioner gather them all.
    order_BxL = jnp.argsort(jnp.where(candidate_BxL, score_BxL, 2.0), axis=1, stable=True)
    if whole_word:
        words_BxL = jnp.where(candidate_BxL, word_BxL, 0)
        taken_BxL = _words_that_fit(jnp.take_along_axis(words_BxL, order_BxL, axis=1), wanted_B)
        order_BxL = jnp.take_along_axis(
            order_BxL, jnp.argsort(~taken_BxL, axis=1, stable=True), axis=1
        )
        count_B = jnp.sum(taken_BxL, axis=1)
    else:
        count_B = jnp.minimum(wanted_B, jnp.sum(candidate_BxL, axis=1))
    weights_BxK = (jnp.arange(slots) < count_B[:, None]).astype(jnp.float32)
    return order_BxL[:, :slots].astype(jnp.int32), weights_BxK


def _words_that_fit(word_BxL: jax.Array, wanted_B: jax.Array) -> jax.Array:
    """Goes through tokens grouped by word (0: no candidate) and takes each word that still fits, bool [B, L]."""
    length = word_BxL.shape[1]
    at_L = jnp.arange(length)
    first_BxL = jnp.diff(word_BxL, axis=1, prepend=-1) != 0
    start_BxL = jax.lax.cummax(jnp.where(first_BxL, at_L, 0), axis=1)
    next_BxL = jnp.concatenate(
        [jnp.where(first_BxL, at_L, length)[:, 1:], jnp.full_like(word_BxL[:, :1], length)], 1
    )
    end_BxL = jax.lax.cummin(next_BxL, axis=1, reverse=True)
    size_BxL = jnp.where(first_BxL & (word_BxL > 0), end_BxL - at_L, 0)

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
