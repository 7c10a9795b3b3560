"""Which examples make up which batch: buckets of similar lengths, shuffled by seed, in an order all seeds share.

Everything is a function of (lengths, batch size, seeds, step), so a run that was stopped goes on at
any step. All seeds of a command see the same bucket at the same step, which lets them train in one
program; which of a bucket's examples a step takes is each seed's own.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FINEST = (
    4  # tokens between possible bucket lengths, up to 64; above, an eighth of the next power of two
)
FILLER = -1  # row number of an empty row
# What a length more costs, in padded tokens that could be computed in the time of its compilation:
# measured 26,000 to 30,000 a step's and 13,000 to 19,000 a prediction's (docs/finetuning.md). Of the latter
# a fifteenth is charged: the programs of an encoder and a head meet other data, and are found in the cache.
STEP_PRICE, PREDICTION_PRICE = 30_000, 1_000


def bucket_lengths(
    lengths_N: np.ndarray, count: int, longest: int, price: float = 0.0
) -> tuple[int, ...]:
    """At most `count` lengths, ascending, that pad these examples least; the last one fits them all.

    Where a length saves less than `price` padded tokens there are fewer. They are taken from a grid
    that is the same for all data, so that programs compiled for other data are found again; but
    `longest`, the longest length the model takes, caps the last.
    """
    rounded_N = np.minimum(rounded(lengths_N), longest)
    edges_M, examples_M = np.unique(rounded_N, return_counts=True)
    before_M = np.concatenate([[0], np.cumsum(examples_M)])
    # cost[k][j]: least padded tokens of the examples up to edge j with k + 1 buckets, the last ending at j.
    cost = [before_M[1:] * edges_M]
    origin: list[np.ndarray] = []
    for _ in range(1, min(count, len(edges_M))):
        # options[i, j]: the bucket before ends at i < j
        options = cost[-1][:, None] + (before_M[1:][None, :] - before_M[1:][:, None]) * edges_M
        options = np.where(np.tri(len(edges_M), k=0, dtype=bool), np.inf, options)
        origin.append(options.argmin(axis=0))
        cost.append(options.min(axis=0))
    last = len(edges_M) - 1
    k = int(np.argmin([c[last] + price * number for number, c in enumerate(cost)]))
    chosen = [last]
    for step in range(k - 1, -1, -1):
        chosen.append(int(origin[step][chosen[-1]]))
    return tuple(int(edges_M[j]) for j in reversed(chosen))


def rounded(lengths_N: np.ndarray) -> np.ndarray:
    """The next lengths on the grid."""
    lengths_N = np.maximum(lengths_N, 1)
    power_N = 2 ** np.ceil(np.log2(lengths_N)).astype(lengths_N.dtype)
    step_N = np.maximum(FINEST, power_N // 16)
    return -(-lengths_N // step_N) * step_N


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, for the caches
class Order:
    """The endless sequence of batches of one task; `lengths_N` are its examples' numbers of tokens.

    Batches are full but for the last of an epoch. What is left over in a bucket moves into the next
    longer one, so each example is seen once an epoch.
    """

    lengths_N: np.ndarray
    buckets: tuple[int, ...]
    batch: int
    shared_seed: int  # of the sequence of buckets

    @functools.cached_property
    def _members(self) -> list[np.ndarray]:
        at_N = np.searchsorted(self.buckets, np.minimum(self.lengths_N, self.buckets[-1]))
        return [np.flatnonzero(at_N == k) for k in range(len(self.buckets))]

    @functools.cached_property
    def _batches(self) -> list[int]:
        """Batches of each bucket in an epoch."""
        counts, left = [], 0
        for members in self._members:
            full, left = divmod(len(members) + left, self.batch)
            counts.append(full)
        counts[-1] += left > 0
        return counts

    @property
    def epoch_steps(self) -> int:
        """Batches of an epoch."""
        return sum(self._batches)

    def bucket(self, step: int) -> int:
        """The length of the rows of this step, the same for every seed."""
        return self.buckets[self._sequence(step // self.epoch_steps)[step % self.epoch_steps]]

    def rows(self, step: int, seed: int) -> np.ndarray:
        """int [batch]: the examples of this step for one seed; FILLER where an epoch has run out."""
        epoch, at = divmod(step, self.epoch_steps)
        sequence = self._sequence(epoch)
        k = int(sequence[at])
        number = int(np.sum(sequence[:at] == k))
        pool = self._pools(epoch, seed)[k]
        found = pool[number * self.batch : (number + 1) * self.batch]
        return np.concatenate([found, np.full(self.batch - len(found), FILLER)])

    @functools.lru_cache(maxsize=64)  # noqa: B019 - an Order lives as long as its run
    def _sequence(self, epoch: int) -> np.ndarray:
        ids = np.repeat(np.arange(len(self.buckets)), self._batches)
        return _generator(self.shared_seed, 0, epoch).permutation(ids)

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _pools(self, epoch: int, seed: int) -> list[np.ndarray]:
        draw = _generator(seed, 1, epoch)
        pools, left = [], np.zeros(0, np.int64)
        for members, batches in zip(self._members, self._batches, strict=True):
            pool = draw.permutation(np.concatenate([left, members]))
            pools.append(pool[: batches * self.batch])
            left = pool[batches * self.batch :]
        return pools


@dataclass(frozen=True)
class Schedule:
    """The steps of a run over one or more tasks."""

    orders: tuple[Order, ...]
    task_of_step: np.ndarray  # int [steps]
    step_of_task: np.ndarray  # int [steps]: how many steps its task has had before
    evaluations: tuple[int, ...]  # numbers of steps done after which dev is scored, ascending

    @property
    def steps(self) -> int:
        """All steps of the run."""
        return len(self.task_of_step)


def schedule(
    orders: Sequence[Order], epochs: Sequence[float], power: float, shared_seed: int
) -> Schedule:
    """The steps of `epochs[t]` epochs of every task t.

    With several tasks their steps are mixed, and each task has a share of all steps in proportion
    to (examples)^power: below 1, small tasks are seen more often than their size would have it.
    """
    steps = [max(1, round(e * o.epoch_steps)) for o, e in zip(orders, epochs, strict=True)]
    total = sum(steps)
    if len(orders) == 1:
        per_epoch = orders[0].epoch_steps
        marks = {*range(per_epoch, total, per_epoch), total}
        zeros = np.zeros(total, np.int64)
        return Schedule(tuple(orders), zeros, np.arange(total), tuple(sorted(marks)))
    size_T = np.array([len(o.lengths_N) for o in orders], np.float64) ** power
    share_T = np.maximum(1, np.round(total * size_T / size_T.sum())).astype(np.int64)
    tasks = _generator(shared_seed, 2, 0).permutation(np.repeat(np.arange(len(orders)), share_T))
    before = np.zeros(len(tasks), np.int64)
    for t in range(len(orders)):
        before[tasks == t] = np.arange(share_T[t])
    marks = {round(len(tasks) * i / round(max(epochs))) for i in range(1, round(max(epochs)) + 1)}
    return Schedule(tuple(orders), tasks, before, tuple(sorted(marks)))


def fixed(
    lengths_N: np.ndarray, buckets: Sequence[int], batch: int
) -> list[tuple[int, np.ndarray]]:
    """(length, rows [batch]) of every batch of an evaluation: the examples by length, padded little."""
    by_length = np.argsort(lengths_N, kind="stable")
    found = []
    for begin in range(0, len(by_length), batch):
        rows = by_length[begin : begin + batch]
        longest = min(int(lengths_N[rows[-1]]), buckets[-1])
        length = next(b for b in buckets if b >= longest)
        found.append(
            (length, np.concatenate([rows, np.full(batch - len(rows), FILLER, rows.dtype)]))
        )
    return found


def subset(count: int, wanted: int, seed: int) -> np.ndarray:
    """`wanted` of `count` examples in ascending order, drawn by seed; all when there are no more."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(_generator(seed, 3, 0).permutation(count)[:wanted])


def _generator(seed: int, purpose: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose, epoch])))
