"""Tagging: a class for every word, and the entities that the tags mark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.convert.entries import Entry, Shape, linear
from electra_jax.finetune.heads import HeadSpec, Linear, Outputs, chosen, of_tokens
from electra_jax.finetune.kinds.kind import Data, Kind, cross_entropy, most_frequent, shares
from electra_jax.finetune.rows import Found, Split
from electra_jax.spec import UserError
from electra_jax.tasks import features, metrics, outputs, tags, tagscore
from electra_jax.tasks import task as tasks
from electra_jax.tasks.features import IGNORE, Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer


class Tag(Kind):
    """A class a word, at its first token; "logits" are [B, L, C]."""

    name = "tag"
    has_classes = True
    hf_class = "ElectraForTokenClassification"
    modern_class = "ModernBertForTokenClassification"
    styles = ("hf", "original")
    pipeline = "token-classification"
    suffix = ".conll"

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """Rows of whole words; "label" is a class at the first token of a word, else IGNORE."""
        return features.of_words(examples, tokenizer, room, labels)

    def head(self, spec: HeadSpec) -> nn.Module:
        """A linear layer on every token."""
        return chosen(spec, Linear, Linear, of_tokens)

    def border(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """One linear layer."""
        return linear(f"{ours}/out", "classifier", shape.width, outputs)

    def count(self, batch: Outputs) -> jax.Array:
        """The tagged tokens of rows of weight 1."""
        return jnp.sum((batch["label"] != IGNORE) * batch["weight"][:, None])

    def loss(self, spec: HeadSpec, out: Outputs, batch: Outputs) -> jax.Array:
        """The cross-entropy of every tagged token."""
        weight_BxL = (batch["label"] != IGNORE) * batch["weight"][:, None]
        loss_BxL = cross_entropy(out["logits"], jnp.maximum(batch["label"], 0))
        return jnp.sum(loss_BxL * weight_BxL)

    def predictions(self, data: Data, split: Split, said: Found) -> list[Any]:
        """A tag a word."""
        best = said["logits"].argmax(axis=-1)
        return [[data.labels[i] for i in best[at]] for at in _word_tokens(split)]

    def probabilities(self, data: Data, split: Split, said: Found) -> list[np.ndarray]:
        """[words, classes] of every example."""
        each = shares(said["logits"])
        return [each[at] for at in _word_tokens(split)]

    def score(
        self, task: Task, references: Sequence[Any], predictions: Any, **options: Any
    ) -> dict[str, Any]:
        """Entities by conlleval's definition, or the accuracy of tags that mark none."""
        return metrics.of_tags(task, references, predictions)

    def write_file(
        self,
        data: Data,
        split: Split,
        said: Found,
        path: str | Path,
        with_probabilities: bool = False,
    ) -> None:
        """CoNLL columns, or JSON lines with probabilities."""
        found = self.predictions(data, split, said)
        if with_probabilities:
            each = self.probabilities(data, split, said)
            outputs.tagged_lists(path, split.examples, found, data.labels, each)
        else:  # the tags are the model's own; rewriting them would hide how it writes entities
            outputs.tagged(path, split.examples, found, scheme=None)

    def check_probabilities(self, task: Task, path: str | Path) -> None:
        """They are JSON lines."""
        if not str(path).endswith((".jsonl", ".json")):
            raise UserError(
                f"probabilities of tags are JSON lines; give --output {Path(path).with_suffix('.jsonl')}"
            )

    def for_leaderboard(self, task: Task, predictions: Sequence[Any]) -> list[Any]:
        """The tags as they are."""
        return list(predictions)

    def as_written(self, task: Task) -> Task:
        """Tags as they are written: conlleval's token accuracy depends on it."""
        return tasks.tags_as_written(task)

    def for_scoring(self, task: Task, examples: Sequence[Any]) -> Task:
        """A task that is to find entities, where the tags mark none, scores the tags."""
        return tasks.for_tags(task, [tag for example in examples for tag in example.tags or ()])

    def score_file(
        self, task: Task, path: str, examples: Sequence[Any], odds: str | None, threshold: float
    ) -> dict[str, Any]:
        """The scores of a file of tags, if its words are those of the references."""
        return tagscore.score_file(task, path, examples)

    def one_answer(self, data: Data, labels: Mapping[str, np.ndarray]) -> Any:
        """ "O", or the most frequent tag where there is none."""
        if tags.OUTSIDE in data.labels:
            return tags.OUTSIDE
        numbers = labels["label"]
        return data.labels[most_frequent(numbers[numbers != IGNORE])]

    def always(self, answer: Any, examples: Sequence[Any]) -> Any:
        """The same tag for every word."""
        return [[answer] * len(example.words) for example in examples]

    def describe(self, task: Task, answer: Any) -> str:
        """The tag."""
        return "no entity" if answer == tags.OUTSIDE else super().describe(task, answer)


def _word_tokens(split: Split) -> list[np.ndarray]:
    """int [words] of every example: where in the outputs a word's first token stands."""
    made = split.features
    assert made.words is not None
    found: list[list[np.ndarray]] = [[] for _ in split.examples]
    for row, places in enumerate(made.words):
        found[made.example[row]].append(split.rows.begin[row] + places)
    return [np.concatenate([np.zeros(0, np.int64), *parts]) for parts in found]


kind = Tag()
