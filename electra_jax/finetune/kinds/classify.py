"""Classification: one of several classes for a text or a pair of texts."""

import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from electra_jax.convert.entries import Entry, Shape, linear
from electra_jax.finetune.heads import FirstToken, HeadSpec, Outputs, chosen, dense, of_first
from electra_jax.finetune.kinds.kind import Kind
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gelu import gelu
from electra_jax.ops.noise import Noise
from electra_jax.tasks import features
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer


class Classification(nn.Module):
    """`ElectraClassificationHead`: [CLS], dropout, dense, GELU, dropout, linear."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = noise_ops.dropout(hidden_BxLxD[:, 0], s.dropout, noise and noise.at(0))
        x_BxD = gelu(dense(s, x_BxD.shape[-1], "dense")(x_BxD))
        x_BxD = noise_ops.dropout(x_BxD, s.dropout, noise and noise.at(1))
        return {"logits": dense(s, s.outputs, "out", last=True)(x_BxD)}


class Classify(Kind):
    """A class a text or pair; the head's "logits" are [B, C]."""

    name = "classify"
    has_classes = True
    hf_class = "ElectraForSequenceClassification"
    modern_class = "ModernBertForSequenceClassification"
    pipeline = "text-classification"
    draws_confusion = True

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """A row an example; "label" is its class, UNKNOWN where it has none."""
        found = features.class_numbers(examples, labels, [e.label for e in examples])
        return features.of_texts(examples, tokenizer, room, {"label": np.array(found, np.int32)})

    def head(self, spec: HeadSpec) -> nn.Module:
        """transformers' head, or the original's linear layer on [CLS]."""
        return chosen(spec, Classification, FirstToken, of_first)

    def border(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """Two linear layers."""
        inner = linear(f"{ours}/dense", "classifier.dense", shape.width, shape.width)
        return [*inner, *linear(f"{ours}/out", "classifier.out_proj", shape.width, outputs)]

    def config(self, head: HeadSpec, labels: Sequence[str]) -> dict[str, Any]:
        """The classes, of which one is right."""
        return {**super().config(head, labels), "problem_type": "single_label_classification"}

    def columns(self, task: Task, predictions: Sequence[Any]) -> dict[str, list[Any]]:
        """What classes that are numbers mean."""
        return {"name": [task.names.get(p, p) for p in predictions]} if task.names else {}

    def score_file(
        self, task: Task, path: str, examples: Sequence[Any], odds: str | None, threshold: float
    ) -> dict[str, Any]:
        """The scores; classes that no reference has are wrong, and said."""
        classes = self.read_predictions(task, path, examples, [e.id for e in examples])
        strange = set(classes) - {example.label for example in examples}
        if (
            task.labels is None and strange
        ):  # classes of the training data that this file has none of
            print(
                f"{path}: {sum(c in strange for c in classes)} predictions are classes that no "
                f"reference has, so wrong: {', '.join(sorted(map(str, strange))[:5])}",
                file=sys.stderr,
            )
        return self.score(task, examples, classes)


kind = Classify()
