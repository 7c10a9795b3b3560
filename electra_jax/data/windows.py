"""The order of rows of a folder too large to shuffle whole: shards shuffled, a window of them mixed at a time.

Like order.py it is a function of (step, batch, seed) and nothing else, and every epoch holds each row once; it needs
memory for the shards, not for the rows.
"""

import functools

import numpy as np

from electra_jax.data import order

# Apart from the keys that order.py gives the same seed: one stream for shards, one for rows.
_SHARDS, _ROWS = 0x5348, 0x524F


class Windows:
    """The order of one split: `rows_S` are the rows of its shards, `window` how many shards are mixed at a time."""

    def __init__(self, rows_S: np.ndarray, window: int, seed: int) -> None:
        if window < 1 or rows_S.size < 1 or rows_S.min() < 1:
            raise ValueError(f"window={window}, shards={rows_S.size}: expected at least 1 of each")
        self._rows_S = np.asarray(rows_S, np.int64)
        self._first_S = np.cumsum(self._rows_S) - self._rows_S
        self._window, self._seed = window, seed
        self._count = -(-self._rows_S.size // window)
        self._epoch = functools.lru_cache(maxsize=2)(self._layout)

    @property
    def most_rows(self) -> int:
        """The rows that a window holds at most."""
        return int(np.sort(self._rows_S)[-self._window :].sum())

    def rows(self, step: int, batch: int, read: int = 0) -> np.ndarray:
        """The row numbers of step `step`'s global batch, int64 [batch], as `order.rows` gives them.

        `read` rows were read before step 0. A batch may straddle windows and epochs.
        """
        n = int(self._rows_S.sum())
        at_B = read + np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
        epoch_B, at_B = at_B // n, at_B % n
        out_B = np.empty(batch, np.int64)
        for epoch in np.unique(epoch_B).tolist():
            shards_S, end_S = self._epoch(epoch)
            edges = np.append(0, end_S[self._window - 1 :: self._window])
            if edges[-1] != n:
                edges = np.append(edges, n)
            window_B = np.searchsorted(edges, at_B, side="right") - 1
            for window in np.unique(window_B[epoch_B == epoch]).tolist():
                here = np.flatnonzero((epoch_B == epoch) & (window_B == window))
                begin, size = int(edges[window]), int(edges[window + 1] - edges[window])
                # Every window of every epoch has a permutation of its own.
                key = np.full(here.size, epoch * self._count + window, np.int64)
                mixed = begin + order.permute(at_B[here] - begin, key, size, self._seed ^ _ROWS)
                place = np.searchsorted(end_S, mixed, side="right")
                shard = shards_S[place]
                inside = mixed - (end_S[place] - self._rows_S[shard])
                out_B[here] = self._first_S[shard] + inside
        return out_B

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(shards in the order of this epoch, the number of rows up to each one's end), int64 [S]."""
        count = self._rows_S.size
        index_S, epoch_S = np.arange(count), np.full(count, epoch, np.int64)
        shards_S = order.permute(index_S, epoch_S, count, self._seed ^ _SHARDS)
        return shards_S, np.cumsum(self._rows_S[shards_S])
