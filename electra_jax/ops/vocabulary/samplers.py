"""Samples of the generator's softmax, kept while its logits go by a tile at a time.

Both samplers draw by Gumbel-max, argmax(logit + noise), from the same distribution; they differ in how many random
numbers that takes, and therefore in which ids come. Noise is addressed by (row, slot, id), so tiles do not move it.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise

SLOT_STRIDE = 1 << 20  # noise of (slot, id) is number slot * SLOT_STRIDE + id
GROUP = 64  # neighbouring ids that `GroupedGumbel` draws as one
NO_ID = np.iinfo(np.int32).max
_OF_GROUPS = 0  # the noise site of groups; ids have the slot's own noise


class Sampler(Protocol):
    """The sample of every slot, [B, K], among the ids seen so far."""

    def add(
        self, draw_BxKxT: jax.Array, first: jax.Array | int, top_BxK: jax.Array, noise: Noise
    ) -> Any:
        """With T ids more, numbered from `first` on; `top_BxK` is the largest logit so far, theirs included."""
        ...

    def sample(self, noise: Noise) -> tuple[jax.Array, jax.Array]:
        """(id, its logit)."""
        ...


class Best(NamedTuple):
    """The largest score seen so far, its id (the first of equals), and its logit; [B, K]."""

    score: jax.Array
    id: jax.Array
    logit: jax.Array

    @staticmethod
    def start(like_BxK: jax.Array) -> "Best":
        """Before any id."""
        low = jnp.full(like_BxK.shape, -jnp.inf, jnp.float32)
        return Best(low, jnp.zeros(like_BxK.shape, jnp.int32), low)

    def add(self, score_BxKxT: jax.Array, logit_BxKxT: jax.Array, first: jax.Array | int) -> "Best":
        """With T ids more, numbered from `first` on."""
        # Two plain reductions: CPU compilers vectorise them, and an arg-max they do not.
        top = jnp.max(score_BxKxT, axis=-1)
        at_T = jnp.arange(score_BxKxT.shape[-1], dtype=jnp.int32)
        at = jnp.min(jnp.where(score_BxKxT == top[..., None], at_T, NO_ID), axis=-1)
        at = jnp.minimum(at, score_BxKxT.shape[-1] - 1)
        new = (top, first + at, pick(logit_BxKxT, at))
        better = top > self.score
        return Best(*(jnp.where(better, n, old) for n, old in zip(new, self, strict=True)))


class Gumbel(NamedTuple):
    """Noise for every id."""

    best: Best

    @staticmethod
    def start(like_BxK: jax.Array) -> "Gumbel":
        """Before any id."""
        return Gumbel(Best.start(like_BxK))

    def add(
        self, draw_BxKxT: jax.Array, first: jax.Array | int, top_BxK: jax.Array, noise: Noise
    ) -> "Gumbel":
        """With T ids more, numbered from `first` on; `Sampler.add`."""
        del top_BxK
        ids_T = first + jnp.arange(draw_BxKxT.shape[-1], dtype=jnp.int32)
        return Gumbel(
            self.best.add(draw_BxKxT + gumbel(noise, draw_BxKxT, ids_T), draw_BxKxT, first)
        )

    def sample(self, noise: Noise) -> tuple[jax.Array, jax.Array]:
        """(id, its logit); `Sampler.sample`."""
        del noise
        return self.best.id, self.best.logit


class GroupedGumbel(NamedTuple):
    """Noise for every group of ids, then for the ids of the group drawn: V / GROUP + GROUP numbers a slot for V.

    A group is drawn by the log of the sum of its exponentials, an id of it by its logit:
    p(group) p(id | group) = p(id). GROUP divides the padded vocabulary and the tile.
    """

    score: jax.Array  # of the best group so far, [B, K]
    first: jax.Array  # its first id, int32
    logits_BxKxG: jax.Array

    @staticmethod
    def start(like_BxK: jax.Array) -> "GroupedGumbel":
        """Before any id."""
        low_BxKxG = jnp.full((*like_BxK.shape, GROUP), -jnp.inf, jnp.float32)
        return GroupedGumbel(low_BxKxG[..., 0], jnp.zeros(like_BxK.shape, jnp.int32), low_BxKxG)

    def add(
        self, draw_BxKxT: jax.Array, first: jax.Array | int, top_BxK: jax.Array, noise: Noise
    ) -> "GroupedGumbel":
        """With T ids more, numbered from `first` on, in groups; `Sampler.add`."""
        batch, slots, ids = draw_BxKxT.shape
        draw_BxKxNxG = draw_BxKxT.reshape(batch, slots, ids // GROUP, GROUP)
        # Written as in the softmax's sums, so that the exponentials are computed once for both.
        weight_BxKxT = jnp.exp(jnp.maximum(draw_BxKxT - top_BxK[..., None], -1e9))
        sum_BxKxN = jnp.sum(weight_BxKxT.reshape(draw_BxKxNxG.shape), axis=-1)
        groups_N = first // GROUP + jnp.arange(ids // GROUP, dtype=jnp.int32)
        noise_BxKxN = gumbel(noise.at(_OF_GROUPS), sum_BxKxN, groups_N)
        score_BxKxN = top_BxK[..., None] + jnp.log(sum_BxKxN) + noise_BxKxN
        at_BxK = jnp.argmax(score_BxKxN, axis=-1).astype(jnp.int32)
        best_BxK = pick(score_BxKxN, at_BxK)
        logits_BxKxG = jnp.take_along_axis(draw_BxKxNxG, at_BxK[..., None, None], axis=2)[:, :, 0]
        better = best_BxK > self.score
        return GroupedGumbel(
            jnp.where(better, best_BxK, self.score),
            jnp.where(better, first + at_BxK * GROUP, self.first),
            jnp.where(better[..., None], logits_BxKxG, self.logits_BxKxG),
        )

    def sample(self, noise: Noise) -> tuple[jax.Array, jax.Array]:
        """(id, its logit); `Sampler.sample`."""
        ids_BxKxG = self.first[..., None] + jnp.arange(GROUP, dtype=jnp.int32)
        score_BxKxG = self.logits_BxKxG + gumbel(noise, self.logits_BxKxG, ids_BxKxG)
        at_BxK = jnp.argmax(score_BxKxG, axis=-1).astype(jnp.int32)
        return self.first + at_BxK, pick(self.logits_BxKxG, at_BxK)


SAMPLERS: dict[str, type[Gumbel] | type[GroupedGumbel]] = {
    "gumbel": Gumbel,
    "grouped": GroupedGumbel,
}


def gumbel(noise: Noise, like_BxKxT: jax.Array, ids: jax.Array) -> jax.Array:
    """The Gumbel noise of every slot at these ids, [T] or [B, K, T]; float32 of the shape of `like_BxKxT`."""
    slots_Kx1 = jnp.arange(like_BxKxT.shape[1], dtype=jnp.uint32)[:, None] * np.uint32(SLOT_STRIDE)
    low_Bx1x1, high_Bx1x1 = (key_B[:, None, None] for key_B in noise)
    counter = slots_Kx1 + ids.astype(jnp.uint32)
    return noise_ops.gumbel_of(noise_ops.hashed(counter, low_Bx1x1, high_Bx1x1))


def slot_keys(noise: Noise, slots: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `gumbel` hashes of every slot, [B, K] uint32: the number of its id 0, to which ids add, and both keys."""
    first_K = jnp.arange(slots, dtype=jnp.uint32) * np.uint32(SLOT_STRIDE)
    shape = (*noise.low_B.shape, slots)
    first_BxK = jnp.broadcast_to(first_K, shape)
    low_BxK, high_BxK = (jnp.broadcast_to(key_B[:, None], shape) for key_B in noise)
    return first_BxK, low_BxK, high_BxK


def pick(x_BxKxT: jax.Array, at_BxK: jax.Array) -> jax.Array:
    """The entry of every slot at its index, [B, K]."""
    return jnp.take_along_axis(x_BxKxT, at_BxK[..., None], axis=-1)[..., 0]
