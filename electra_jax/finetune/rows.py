"""Examples of any length in memory, and batches of them as arrays of one length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from electra_jax.finetune.network import IGNORED
from electra_jax.tasks.features import Features

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Token rows one after the other, and what each example is labelled with.

    An example of a multiple-choice task is `choices` rows in a row; of any other task, one.
    `labels` holds arrays by name: one value an example ("label"; "start", "end", "impossible"), or
    for "tags" one a token, as long as `ids`.
    """

    ids: np.ndarray  # int32 [tokens]
    types: np.ndarray  # int32 [tokens]
    begin: np.ndarray  # int64 [rows + 1]
    labels: Mapping[str, np.ndarray]
    choices: int = 1
    pad: int = 0

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
            if name == "tags":
                made["label"] = tokens(values, IGNORED)
            else:
                made[name] = values[np.maximum(numbers_B, 0)]
        return made

    def _shape(self, x_BxCxL: np.ndarray) -> np.ndarray:
        return x_BxCxL if self.choices > 1 else x_BxCxL[:, 0]


def of_features(found: Features, pad: int, score_range: tuple[float, float] | None = None) -> Rows:
    """A split's features as rows. Scores are scaled to [0, 1] by the task's range.

    Rows of no known label (class -1) may be predicted but not trained on.
    """
    flat = (
        np.concatenate(x) if len(x) else np.zeros(0, np.int32) for x in (found.ids, found.types)
    )
    ids, types = flat
    begin = np.concatenate([[0], np.cumsum([len(row) for row in found.ids])]).astype(np.int64)
    targets = dict(found.targets)
    if found.kind == "tag":
        targets["tags"] = np.concatenate(targets["tags"])
    if found.kind == "regress":
        low, high = score_range or (0.0, 1.0)
        targets = {"label": ((targets["score"] - low) / (high - low)).astype(np.float32)}
    return Rows(ids, types, begin, targets, found.group, pad)


def stack(batches: Sequence[Arrays]) -> Arrays:
    """Batches of several seeds as one, with a leading axis."""
    return {name: np.stack([b[name] for b in batches]) for name in batches[0]}
