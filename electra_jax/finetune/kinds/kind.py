"""What a kind of task is: everything of fine-tuning that depends on it, in one object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.convert.entries import Entry, Shape, linear
from electra_jax.convert.modern_names import prediction_head
from electra_jax.finetune.heads import HeadSpec, Outputs
from electra_jax.finetune.rows import Found, Split
from electra_jax.model.options import MODERN
from electra_jax.spec import UserError
from electra_jax.tasks import metrics, outputs
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer


class Data(Protocol):
    """A task and its classes, as a plan or a workdir has them."""

    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def head(self) -> HeadSpec: ...


class Kind:
    """One kind of task. A subclass says what is its own; what most kinds do alike stands here.

    An example has `id`, `labelled` (whether it says what is right) and `classes` (the names of classes in its label).
    """

    name: ClassVar[str]
    has_classes: ClassVar[bool] = False  # whether the training data say which classes there are
    hf_class: ClassVar[str] = ""  # of transformers, that a model leaves as; "": none has this head
    modern_class: ClassVar[str] = ""  # the same on a ModernBERT
    styles: ClassVar[tuple[str, ...]] = ("hf",)  # of heads that transformers has, too
    pipeline: ClassVar[str] = ""  # of transformers
    suffix: ClassVar[str] = ".tsv"  # of a file of predictions
    draws_confusion: ClassVar[bool] = False
    # What the head reads beside ids, types and docs: name in `Features.inputs` -> shape of one unit's; int32.
    inputs: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    taught: ClassVar[
        tuple[str, ...]
    ] = ()  # targets, a number a unit, that the head reads in training

    def features(
        self,
        task: Task,
        examples: Sequence[Any],
        tokenizer: Tokenizer,
        room: Room,
        labels: Sequence[str] = (),
        training: bool = False,
    ) -> Features:
        """The examples as rows of tokens, with targets by name.

        `labels`: the classes in order. `training`: examples that cannot be trained on give no rows.
        """
        raise NotImplementedError

    def labels(self, task: Task, made: Features) -> dict[str, np.ndarray]:
        """The targets as arrays: a value a row, or for `made.per_token` a value a token, rows one after the other."""
        flat = made.per_token
        return {
            name: np.concatenate(x) if name in flat and len(x) else np.asarray(x)
            for name, x in made.targets.items()
        }

    def outputs(self, labels: Sequence[str]) -> int:
        """How many outputs the head has: a class each, unless a kind says otherwise."""
        return len(labels)

    def head(self, spec: HeadSpec) -> nn.Module:
        """The head as a module: (hidden [B, L, D], noise, batch, training) -> outputs by name."""
        raise NotImplementedError

    def border(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """The head's part of the border table of `hf_class`, under our name `ours`."""
        raise NotImplementedError

    def leaves_as(self, family: str) -> str:
        """The class of transformers that a model on an encoder of this family leaves as; "": none has this head."""
        return self.modern_class if family == MODERN else self.hf_class

    def table(self, shape: Shape, outputs: int, ours: str) -> list[Entry]:
        """The head's part of the border table of `leaves_as`; ModernBERT's classes all have one head."""
        if shape.family != MODERN:
            return self.border(shape, outputs, ours)
        last = linear(f"{ours}/out", "classifier", shape.width, outputs)
        return [*prediction_head(shape, ours), *last]

    def config(self, head: HeadSpec, labels: Sequence[str]) -> dict[str, Any]:
        """What the exported config.json says of the head."""
        if not self.has_classes:
            return {}
        return {
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }

    def exported(
        self, params: Mapping[str, np.ndarray], ours: str, score_range: Any
    ) -> Mapping[str, np.ndarray]:
        """The parameters as they leave."""
        return params

    def count(self, batch: Outputs) -> jax.Array:
        """What a mean of losses divides by: the rows of weight 1."""
        return jnp.sum(batch["weight"])

    def loss(self, spec: HeadSpec, out: Outputs, batch: Outputs) -> jax.Array:
        """The sum of losses over the rows of weight 1; by default the cross-entropy of "logits" and "label"."""
        return jnp.sum(cross_entropy(out["logits"], batch["label"]) * batch["weight"])

    def predictions(self, data: Data, split: Split, said: Found) -> list[Any]:
        """What the head's outputs mean, one an example; by default the likeliest class."""
        return [data.labels[i] for i in said["logits"].argmax(axis=-1)]

    def probabilities(self, data: Data, split: Split, said: Found) -> list[np.ndarray]:
        """The classes' probabilities, one array an example."""
        return list(shares(said["logits"]))

    def scores(self, data: Data, split: Split, said: Found) -> dict[str, Any]:
        """The task's metrics of a labelled split."""
        return self.score(data.task, split.examples, self.predictions(data, split, said))

    def score(
        self, task: Task, references: Sequence[Any], predictions: Any, **options: Any
    ) -> dict[str, Any]:
        """The task's metrics of predictions for labelled examples, in their order."""
        return metrics.of_labels(task, references, predictions)

    def write(self, data: Data, name: str, split: Split, said: Found, folder: Path) -> None:
        """Writes a split's predictions into a folder, and its leaderboard's file where it has one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.write_file(data, split, said, folder / f"{name}{self.suffix}")
        board = data.task.leaderboard
        if board is not None and name in board.files:
            ids = [example.id for example in split.examples]
            where = folder / "leaderboard"
            where.mkdir(exist_ok=True)
            found = self.for_leaderboard(data.task, self.predictions(data, split, said))
            outputs.leaderboard(where, data.task, name, ids, found)

    def for_leaderboard(self, task: Task, predictions: Sequence[Any]) -> list[Any]:
        """The predictions as the task's leaderboard takes them."""
        assert task.leaderboard is not None
        return [task.leaderboard.names.get(name, name) for name in predictions]

    def write_file(
        self,
        data: Data,
        split: Split,
        said: Found,
        path: str | Path,
        with_probabilities: bool = False,
    ) -> None:
        """Writes one file of predictions; with a column "p_CLASS" for every class where that is asked for."""
        found = self.predictions(data, split, said)
        more = self.columns(data.task, found)
        if with_probabilities:
            each = self.probabilities(data, split, said)
            names = data.labels or range(len(each[0]) if each else 0)
            columns = np.array(each).T.tolist()
            more |= {f"p_{name}": column for name, column in zip(names, columns, strict=True)}
        outputs.labels(path, [e.id for e in split.examples], self.shown(found), more)

    def columns(self, task: Task, predictions: Sequence[Any]) -> dict[str, list[Any]]:
        """Further columns of a file of predictions."""
        return {}

    def shown(self, predictions: Sequence[Any]) -> list[Any]:
        """The predictions as a file has them."""
        return list(predictions)

    def check_probabilities(self, task: Task, path: str | Path) -> None:
        """UserError where there are no probabilities, or the file is to be of another format."""

    def read_predictions(
        self, task: Task, path: str, examples: Sequence[Any], ids: Sequence[str]
    ) -> list[Any]:
        """The predictions of a file that `write_file` or another program wrote, in the order of the examples."""
        wanted = task.wanted("dev")
        said = outputs.read_labels(path, ids)
        return [wanted.label(f"{path}: id {i}", text) for i, text in zip(ids, said, strict=True)]

    def score_file(
        self, task: Task, path: str, examples: Sequence[Any], odds: str | None, threshold: float
    ) -> dict[str, Any]:
        """The scores of a file of predictions; `odds` and `threshold` are of questions without an answer."""
        ids = [example.id for example in examples]
        return self.score(task, examples, self.read_predictions(task, path, examples, ids))

    def as_written(self, task: Task) -> Task:
        """The task as `score` reads references: their labels as they are written."""
        return task

    def for_training(self, task: Task, examples: Sequence[Any]) -> Task:
        """The task as its training examples make it."""
        return task

    def for_scoring(self, task: Task, examples: Sequence[Any]) -> Task:
        """The task as the references of a score make it."""
        return task

    def one_answer(self, data: Data, labels: Mapping[str, np.ndarray]) -> Any:
        """The one answer that is right most often in the training rows."""
        return data.labels[most_frequent(labels["label"])]

    def always(self, answer: Any, examples: Sequence[Any]) -> Any:
        """The predictions of always giving one answer."""
        return [answer] * len(examples)

    def describe(self, task: Task, answer: Any) -> str:
        """What the one answer is, for people."""
        return repr(task.names.get(answer, answer))


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """The cross-entropy of logits [..., C] and classes [...]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def shares(logits: np.ndarray) -> np.ndarray:
    """The softmax over the last axis, float64."""
    logits = logits.astype(np.float64)
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def most_frequent(numbers: np.ndarray) -> int:
    """The most frequent of the numbers that are not negative."""
    return int(np.bincount(numbers[numbers >= 0]).argmax())


def no_probabilities(task: Task, what: str) -> UserError:
    """The error of asking for probabilities where there are none."""
    return UserError(f"task {task.name} predicts {what}, which has no probability")
