"""Regression: a number for a text or a pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from electra_jax.finetune.heads import HeadSpec, Outputs
from electra_jax.finetune.kinds.classify import Classify
from electra_jax.finetune.kinds.kind import no_probabilities
from electra_jax.tasks import features
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer


class Regress(Classify):
    """A number a text or pair, trained as its place in the task's range."""

    name = "regress"
    has_classes = False
    draws_confusion = False

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """A row an example; "label" is its score, nan where it has none."""
        found = [np.nan if e.label is None else e.label for e in examples]
        return features.of_texts(examples, tokenizer, room, {"label": np.array(found, np.float32)})

    def labels(self, task: Task, made: Features) -> dict[str, np.ndarray]:
        """Scores scaled to [0, 1] by the task's range."""
        low, high = task.score_range or (0.0, 1.0)
        return {"label": ((made.targets["label"] - low) / (high - low)).astype(np.float32)}

    def outputs(self, labels: Sequence[str]) -> int:
        """One."""
        return 1

    def loss(self, spec: HeadSpec, out: Outputs, batch: Outputs) -> jax.Array:
        """Squared errors."""
        error_B = (out["logits"][:, 0] - batch["label"]) ** 2
        return (error_B * batch["weight"]).sum()

    def config(self, head: HeadSpec, labels: Sequence[str]) -> dict[str, Any]:
        """One output, which is a number."""
        one = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        return {"problem_type": "regression", **one}

    def exported(
        self, params: Mapping[str, np.ndarray], ours: str, score_range: Any
    ) -> Mapping[str, np.ndarray]:
        """A head that was trained on scores in [0, 1], with the range folded into its last layer."""
        low, high = score_range
        kernel, bias = f"{ours}/out/kernel", f"{ours}/out/bias"
        scale = np.float32(high - low)
        changed = {kernel: params[kernel] * scale, bias: params[bias] * scale + np.float32(low)}
        return {**params, **changed}

    def predictions(self, data: Any, split: Any, said: Mapping[str, np.ndarray]) -> list[Any]:
        """Numbers in the task's range."""
        low, high = data.task.score_range or (0.0, 1.0)
        return (low + (high - low) * said["logits"][:, 0].astype(np.float64)).tolist()

    def check_probabilities(self, task: Task, path: Any) -> None:
        """Always a UserError."""
        raise no_probabilities(task, "a number")

    def for_leaderboard(self, task: Task, predictions: Sequence[Any]) -> list[Any]:
        """Scores held inside the task's range."""
        low, high = task.score_range or (-float("inf"), float("inf"))
        return [float(min(max(score, low), high)) for score in predictions]

    def columns(self, task: Task, predictions: Sequence[Any]) -> dict[str, list[Any]]:
        """None."""
        return {}

    def shown(self, predictions: Sequence[Any]) -> list[Any]:
        """Every digit: rounded scores tie, which changes rank correlations."""
        return [repr(score) for score in predictions]

    def for_training(self, task: Task, examples: Sequence[Any]) -> Task:
        """A task without a range of its own takes that of its training labels."""
        return task.with_range_of([example.label for example in examples])

    def read_predictions(
        self, task: Task, path: str, examples: Sequence[Any], ids: Sequence[str]
    ) -> list[Any]:
        """Numbers, outside the range, too."""
        return super().read_predictions(task.without_range(), path, examples, ids)

    def score_file(
        self, task: Task, path: str, examples: Sequence[Any], odds: str | None, threshold: float
    ) -> dict[str, Any]:
        """The scores."""
        ids = [example.id for example in examples]
        return self.score(task, examples, self.read_predictions(task, path, examples, ids))

    def one_answer(self, data: Any, labels: Mapping[str, np.ndarray]) -> Any:
        """The mean score."""
        low, high = data.task.score_range or (0.0, 1.0)
        return low + (high - low) * float(np.mean(labels["label"], dtype=np.float64))

    def describe(self, task: Task, answer: Any) -> str:
        """The number."""
        return f"{answer:.4g}, the mean"


kind = Regress()
