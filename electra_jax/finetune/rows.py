"""Examples of any length in memory, and batches of them as arrays of one length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from electra_jax.tasks.features import IGNORE, Features

Arrays = dict[str, np.ndarray]
Found = dict[str, np.ndarray]  # a head's outputs for every example, by name


@dataclass(frozen=True)
class Rows:
    """Token rows one after the other, and what each example is labelled with.

    An example of a multiple-choice task is `choices` rows in a row; of any other task, one.
    `labels` holds arrays by name, those that a head reads beside the tokens among them: one value an example, or for
    those in `per_token` one a token, as long as `ids`.
    """

    ids: np.ndarray  # int32 [tokens]
    types: np.ndarray  # int32 [tokens]
    begin: np.ndarray  # int64 [rows + 1]
    labels: Mapping[str, np.ndarray]
    choices: int = 1
    pad: int = 0
    per_token: tuple[str, ...] = ()

    def __len__(self) -> int:
        return (len(self.begin) - 1) // self.choices

    @property
    def lengths(self) -> np.ndarray:
        """int [examples]: tokens of each example, the longest choice's where there are several."""
        return np.diff(self.begin).reshape(len(self), self.choices).max(axis=1, initial=0)

    def batch(self, numbers_B: np.ndarray, length: int) -> Arrays:
        """ids, types, docs [B, L] (with choices [B, C, L]), weight [B] and labels; -1 is an empty row."""
        real_B = numbers_B >= 0
        rows = np.maximum(numbers_B, 0)[:, None] * self.choices + np.arange(self.choices)
        begin, end = self.begin[rows], self.begin[rows + 1]
        at = begin[..., None] + np.arange(length)
        present = (at < end[..., None]) & real_B[:, None, None]
        at = np.minimum(at, len(self.ids) - 1)

        def tokens(values: np.ndarray, empty: int) -> np.ndarray:
            return self._shape(np.where(present, values[at], empty).astype(np.int32))

        made = {
            "ids": tokens(self.ids, self.pad),
            "types": tokens(self.types, 0),
            # An empty row sees itself as one document: attention over nothing would be all padding.
            "docs": self._shape(present.astype(np.int32)),
            "weight": real_B.astype(np.float32),
        }
        for name, values in self.labels.items():
            if name in self.per_token:
                made[name] = tokens(values, IGNORE)
            else:
                made[name] = values[np.maximum(numbers_B, 0)]
        return made

    def _shape(self, x_BxCxL: np.ndarray) -> np.ndarray:
        return x_BxCxL if self.choices > 1 else x_BxCxL[:, 0]


@dataclass(frozen=True)
class Split:
    """One file of a task, encoded."""

    where: str
    examples: Sequence[Any]
    features: Features
    rows: Rows
    labelled: bool


def of_features(made: Features, labels: Mapping[str, np.ndarray], pad: int) -> Rows:
    """A split's features as rows, with their labels as arrays (`Kind.labels`).

    Rows of no known label (class -1) may be predicted but not trained on.
    """
    ids, types = (
        np.concatenate(x) if len(x) else np.zeros(0, np.int32) for x in (made.ids, made.types)
    )
    begin = np.concatenate([[0], np.cumsum([len(row) for row in made.ids])]).astype(np.int64)
    return Rows(ids, types, begin, {**made.inputs, **labels}, made.group, pad, made.per_token)


def stack(batches: Sequence[Arrays]) -> Arrays:
    """Batches of several seeds as one, with a leading axis."""
    return {name: np.stack([b[name] for b in batches]) for name in batches[0]}
