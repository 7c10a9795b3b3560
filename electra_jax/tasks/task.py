"""Tasks: declarative entries that say where the files are, how they read, and what is measured."""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from electra_jax.spec import UserError
from electra_jax.tasks import tags
from electra_jax.tasks.examples import Example, TextExample
from electra_jax.tasks.files import parquetfiles, tables
from electra_jax.tasks.files.tagfiles import Conll, TagLists
from electra_jax.tasks.files.wanted import Wanted, unknown_label
from electra_jax.text.sources import datasets

# A split whose name begins so need not have labels.
_UNLABELLED = ("test", "diagnostic", "predict")
_PACKED = ("", ".gz", ".bz2", ".zst")
TFDS = "tfds"  # --data-dir tfds: the task's data set, prepared in TFDS_DATA_DIR


class Layout(Protocol):
    """Reads one file. The layouts are in textfiles, tagfiles, qafiles, choicefiles, relationfiles."""

    def read(self, path: str, wanted: Wanted) -> Sequence[Any]:
        """The examples of a file; raises UserError, with the line, for what is wrong with it."""
        ...


@dataclasses.dataclass(frozen=True)
class Either:
    """One layout for the files of which `test` is true, another for the rest."""

    test: Callable[[str], bool]
    yes: Layout
    no: Layout

    def read(self, path: str, wanted: Wanted) -> Sequence[Any]:
        """The examples of a file."""
        return (self.yes if self.test(path) else self.no).read(path, wanted)


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """The files that a leaderboard takes: split -> file name, and class -> what it calls it."""

    files: Mapping[str, str]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task. Adding one is an entry in glue.py, sentences.py or spans.py.

    kind: classify (one label of `labels`), regress (a number in `score_range`), tag (a tag a
    word), qa (a span of a context), choice (one of a few texts), or one of the user's own.
    numbers: labels are numbers, not classes.
    files: split -> names a file may have, each also compressed, in one of `folders` of --data-dir
    or in it. layout: how files read; `test_layout` where the test file reads otherwise.
    labels: the classes in the order of the head's outputs; None: those of the training data.
    metrics: names in metrics.METRICS (a text metric) or the one scorer of the kind; `main_metric`
    is the key of the scores that chooses the best run. positive: the class whose F1 is "f1".
    negative: the class that "relation_f1" does not count. epochs: of the paper's Table 7.
    max_len: tokens a row. unordered: the two texts may change places, and training data are
    doubled that way (the original's double_unordered). impossible: questions may have no answer.
    folder_splits: a split is a folder. tfds: the data set's name there; how its records, and those
    of Parquet files, read, and split -> its split, where these are not the usual ones.
    """

    name: str
    kind: str
    layout: Layout
    metrics: tuple[str, ...]
    main_metric: str
    files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    folders: tuple[str, ...] = ()
    test_layout: Layout | None = None
    labels: tuple[str, ...] | None = None
    score_range: tuple[float, float] | None = None
    numbers: bool = False
    positive: str | None = None
    negative: str | None = None
    epochs: float = 3.0
    max_len: int = 128
    unordered: bool = False
    impossible: bool = False
    folder_splits: bool = False
    leaderboard: Leaderboard | None = None
    tfds: str | None = None
    tfds_layout: Layout | None = None
    tfds_splits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def with_range_of(self, labels: Sequence[Any]) -> "Task":
        """The task with the range of these labels where it has none of its own. UserError where they are all one."""
        if self.score_range is not None:
            return self
        low, high = min(labels), max(labels)
        if low == high:
            raise UserError(
                f"task {self.name}: every training label is {low}; nothing can be learned"
            )
        return dataclasses.replace(self, score_range=(float(low), float(high)))

    def without_range(self) -> "Task":
        """The task with labels of any size."""
        return dataclasses.replace(self, score_range=None)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the official layout has: train, dev, test and what else there is."""
        return tuple(self.files)

    @property
    def names(self) -> dict[str, str]:
        """Class -> what it means, of classes that are numbers."""
        rename = getattr(self.layout, "rename", {})
        return {number: name for name, number in rename.items() if number.isdigit()}

    def file(self, data_dir: str | Path, split: str) -> str:
        """The split's file under `data_dir`. Raises UserError that lists the names looked for."""
        if not self.files:
            raise UserError(f"task {self.name}: {data_dir} is a folder; name one file for {split}")
        if split not in self.files:
            known = ", ".join(self.files)
            raise UserError(f"task {self.name} has no split {split!r}; splits: {known}")
        if not os.path.isdir(data_dir):
            raise UserError(f"data folder {data_dir} does not exist")
        for folder in (*self.folders, ""):
            for name in self.files[split]:
                for suffix in _PACKED:
                    path = os.path.join(data_dir, folder, name + suffix)
                    if os.path.exists(path):
                        return path
        folders = " or ".join(os.path.join(data_dir, folder) for folder in (*self.folders, ""))
        raise UserError(
            f"task {self.name}: no file for {split}; looked for {' or '.join(self.files[split])} "
            f"(also .gz .bz2 .zst) in {folders}"
        )

    def read(self, where: str | Path, split: str, carry_on: bool = False) -> list[Any]:
        """The examples of a split: from a file, from the folder --data-dir, or from TFDS.

        `where` is a file, a folder in the official layout, "tfds" (the task's data set) or
        "tfds:NAME[:split]". What the user should hear of is said on stderr. `carry_on`: empty
        texts are kept, and answers that are not where the file says are not trained on. Raises
        UserError for every mistake in the data, before anything is trained.
        """
        wanted = self.wanted(split, carry_on)
        path, layout = str(where), self.layout
        if path == TFDS or datasets.is_name(path):
            path, layout = self._in_tfds(path, split), self.tfds_layout or layout
        else:
            path = self._in_folder(path, split) if os.path.isdir(path) else path
            if not os.path.exists(path):
                raise UserError(f"task {self.name}: file {path} for {split} does not exist")
            if parquetfiles.is_parquet(path):
                layout = self.tfds_layout or layout
            elif self.test_layout is not None and not wanted.labelled and self._is_test(path):
                layout = self.test_layout
        found = list(layout.read(path, wanted))
        unknown = sum(not example.labelled for example in found)
        if 0 < unknown < len(found):
            wanted.notes.append(
                f"{path}: {unknown} of {len(found)} examples have no label, so it is not scored"
            )
        if wanted.empty:
            wanted.notes.append(
                f"{len(wanted.empty)} empty texts kept, the first: {wanted.empty[0]}"
            )
        for note in wanted.notes:
            tqdm.write(note, file=sys.stderr)  # above a progress bar, if one is shown
        return found

    def _is_test(self, path: str) -> bool:
        """Whether a file has the columns of the test files, not those of training."""
        names = getattr(self.test_layout, "text", ())
        return any(name in tables.first_row(path) for name in names)

    def wanted(self, split: str, carry_on: bool = False) -> Wanted:
        """What a reader of this task's files checks."""
        return Wanted(
            labelled=not split.startswith(_UNLABELLED),
            labels=self.labels,
            regress=self.numbers,
            scores=self.score_range,
            impossible=self.impossible,
            carry_on=carry_on,
        )

    def _in_folder(self, path: str, split: str) -> str:
        """The split's file in a folder; the folder itself where a split is one (RACE)."""
        if self.folder_splits and not any(
            os.path.isdir(os.path.join(path, folder, name))
            for folder in (*self.folders, "")
            for name in self.files.get(split, ())
        ):
            return path
        return self.file(path, split)

    def _in_tfds(self, name: str, split: str) -> str:
        """tfds:NAME:split for "tfds" and for names without a split."""
        theirs = {"train": "train", "dev": "validation", "test": "test", **self.tfds_splits}
        if name == TFDS:
            if self.tfds is None:
                raise UserError(f"task {self.name} has no TFDS name; write tfds:NAME[:split]")
            name = f"{datasets.PREFIX}{self.tfds}"
        if len(name.split(":")) == 2:
            name = f"{name}:{theirs.get(split, split)}"
        return name


def labels_of(task: Task, examples: Sequence[Any]) -> tuple[str, ...]:
    """The classes: the task's, or those that the training examples have, sorted (numbers as such)."""
    if task.labels is not None:
        return task.labels
    found = {label for example in examples for label in example.classes}
    if len(found) < 2:
        raise UserError(
            f"task {task.name}: the training data have {len(found)} classes "
            f"({', '.join(found) or 'none'}); expected two or more"
        )
    if all(re.fullmatch("-?[0-9]{1,4000}", label) for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found, key=lambda label: (label != "O", label)))


def with_labels(task: Task, labels: Sequence[str]) -> Task:
    """The task with the classes that its training data have; they say what is a label elsewhere."""
    return for_tags(dataclasses.replace(task, labels=tuple(labels)), labels)


def for_tags(task: Task, found: Iterable[str]) -> Task:
    """The task; where it is to find entities, but the tags mark none, it reads them as they are and
    its score is their accuracy."""
    if "entities" not in task.metrics or tags.mark_entities(found):
        return task
    return dataclasses.replace(
        task,
        layout=as_written(task.layout),
        metrics=("token_accuracy",),
        main_metric="accuracy",
    )


def tags_as_written(task: Task) -> Task:
    """The task with its tags as they are written, and any of them."""
    layout = as_written(task.layout)
    return task if layout == task.layout else dataclasses.replace(task, layout=layout, labels=None)


def as_written(layout: Any) -> Any:
    """The layout, without a rewriting of tags where it has one."""
    if isinstance(layout, Either):
        return dataclasses.replace(layout, yes=as_written(layout.yes), no=as_written(layout.no))
    return (
        dataclasses.replace(layout, scheme=None) if isinstance(layout, Conll | TagLists) else layout
    )


def check_labels(where: str, examples: Sequence[Example], labels: Sequence[str]) -> None:
    """Raises UserError for the first label that is none of `labels` (those of the training data)."""
    known = set(labels)
    for number, example in enumerate(examples):
        for label in example.classes:
            if label not in known:
                place = f"{where}: example {number + 1} (id {example.id})"
                raise unknown_label(place, label, labels)


def both_orders(examples: Sequence[TextExample]) -> list[TextExample]:
    """The examples, then the same with their two texts changed round (the original's way)."""
    turned = [
        dataclasses.replace(example, text=example.pair, pair=example.text)
        for example in examples
        if example.pair is not None
    ]
    return [*examples, *turned]


def labelled(examples: Sequence[Example]) -> bool:
    """Whether every example says what is right, so that predictions can be scored."""
    return all(example.labelled for example in examples)
