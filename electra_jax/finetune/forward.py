"""What a head says about every example of a split, read off the device a few batches late."""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.finetune import order
from electra_jax.finetune.program import Program
from electra_jax.finetune.rows import Found, Rows
from electra_jax.model.electra import Params

AHEAD = 2  # batches that are dispatched before the oldest is read
PER_TOKEN = ("start", "end")  # [B, L]; "logits" too, of a tagger


def predict(
    program: Program,
    params: Params,
    task: str,
    rows: Rows,
    buckets: Sequence[int],
    batch: int,
) -> list[Found]:
    """The outputs of every run of the program: arrays by name, in the order of the examples.

    One value or row an example; of taggers and of span logits one a token, like `rows.ids`.
    """
    filling = [Filling(rows) for _ in range(max(1, program.runs))]
    waiting: collections.deque[tuple[np.ndarray, Any]] = collections.deque()
    for length, numbers_B in order.fixed(rows.lengths, buckets, batch):
        said = program.predict(task, params, rows.batch(numbers_B, length))
        waiting.append((numbers_B, said))
        if len(waiting) > AHEAD:
            _read(filling, *waiting.popleft(), program.runs)
    while waiting:
        _read(filling, *waiting.popleft(), program.runs)
    return [f.arrays for f in filling]


def _read(filling: list["Filling"], numbers_B: np.ndarray, said: Any, runs: int) -> None:
    values = jax.device_get(said)
    for i, one in enumerate(filling):
        one.add(numbers_B, {name: x[i] if runs else x for name, x in values.items()})


class Filling:
    """Outputs of one run, put to their examples' places."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.arrays: Found = {}

    def add(self, numbers_B: np.ndarray, values: Found) -> None:
        real = numbers_B >= 0
        numbers = numbers_B[real]
        for name, x in values.items():
            x = x[real]
            if name in PER_TOKEN or (x.ndim == 3 and name == "logits"):
                self._tokens(name, numbers, x)
            else:
                self._array(name, (len(self._rows), *x.shape[1:]), x.dtype)[numbers] = x

    def _tokens(self, name: str, numbers: np.ndarray, x_BxL: np.ndarray) -> None:
        begin = self._rows.begin
        whole = self._array(name, (len(self._rows.ids), *x_BxL.shape[2:]), x_BxL.dtype)
        for number, row in zip(numbers, x_BxL, strict=True):
            here = slice(begin[number], begin[number + 1])
            whole[here] = row[: here.stop - here.start]

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = np.zeros(shape, dtype)
        return self.arrays[name]


def mean(of_runs: Sequence[Found]) -> Found | None:
    """The ensemble: the mean of the runs' log-probabilities (of scores and logits of spans, as they are).

    None where outputs are choices of a beam, which have no mean.
    """
    if "start_top" in of_runs[0]:
        return None
    return {
        name: np.mean([_comparable(name, found[name]) for found in of_runs], axis=0)
        for name in of_runs[0]
    }


def _comparable(name: str, x: np.ndarray) -> np.ndarray:
    if name != "logits" or x.shape[-1] == 1:
        return x.astype(np.float64)
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
