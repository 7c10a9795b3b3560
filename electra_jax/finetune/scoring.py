"""From what a head says to what it means: predictions, their scores, and the files they go to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from electra_jax import files
from electra_jax.finetune import answers, metrics, outputs
from electra_jax.finetune.answers import Answers, Candidates
from electra_jax.finetune.forward import Found
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.plan import Split
from electra_jax.finetune.tasks import Task


class Data(Protocol):
    """A task and its classes, as a plan or a workdir has them."""

    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def head(self) -> HeadSpec: ...


@dataclass(frozen=True)
class Scored:
    """A task and its classes, without training data."""

    task: Task
    labels: tuple[str, ...]
    head: HeadSpec


def predictions(data: Data, split: Split, said: Found) -> list[Any]:
    """One an example: the class, a number in the task's range, the right choice, or a tag a word."""
    kind = data.task.kind
    if kind == "regress":
        low, high = data.task.score_range or (0.0, 1.0)
        return (low + (high - low) * said["logits"][:, 0].astype(np.float64)).tolist()
    best = said["logits"].argmax(axis=-1)
    if kind == "classify":
        return [data.labels[i] for i in best]
    if kind == "choice":
        return best.tolist()
    tagged: list[list[str]] = [[] for _ in split.examples]
    made = split.features
    assert made.words is not None
    for row, places in enumerate(made.words):
        at = split.rows.begin[row] + places
        tagged[made.example[row]] += [data.labels[i] for i in best[at]]
    return tagged


def spans(split: Split, said: Found) -> Answers:
    """The answers to every question: transformers' rule for its head, the original's for its own."""
    made, begin = split.features, split.rows.begin
    assert made.windows is not None

    def candidates(window: int) -> Candidates:
        here = slice(begin[window], begin[window + 1])
        if "start_top" in said:
            # Without the classifier, twice how probable the start is at [CLS] speaks for no answer.
            null = said["null"][window] if "null" in said else 2 * _log_share(said["start"][here])
            return answers.from_beam(
                said["start_top"][window],
                said["start_score"][window],
                said["end_top"][window],
                said["end_score"][window],
                float(null),
            )
        found = answers.from_logits(said["start"][here], said["end"][here])
        return found._replace(null=float(said["null"][window])) if "null" in said else found

    windows = map(candidates, range(len(made)))
    return answers.decode(split.examples, made.windows, windows, relative="null" not in said)


def _log_share(start_L: np.ndarray) -> float:
    """The log-probability of the first position."""
    shifted_L = start_L.astype(np.float64) - start_L.max()
    return float(shifted_L[0] - np.log(np.exp(shifted_L).sum()))


def null_threshold(said: Found) -> float:
    """Odds of no answer above which none is given: the original's of its classifier, else 0."""
    return answers.NULL_THRESHOLD if "null" in said else 0.0


def scores(data: Data, split: Split, said: Found) -> dict[str, Any]:
    """The task's metrics of a labelled split."""
    task = data.task
    if task.kind != "qa":
        return metrics.score(task, split.examples, predictions(data, split, said))
    found = spans(split, said)
    if not task.impossible:
        return metrics.score(task, split.examples, found.texts)
    limit = null_threshold(said)
    return metrics.score(task, split.examples, found.texts, found.null_odds, limit)


def write(data: Data, name: str, split: Split, said: Found, folder: Path) -> None:
    """Writes a split's predictions into a folder: the task's files, and its leaderboard's where it has one.

    Questions give NAME/predictions.json, nbest_predictions.json and null_odds.json; tagging
    NAME.conll; the others NAME.tsv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if data.task.kind == "qa":
        (folder / name).mkdir(exist_ok=True)
        outputs.answers(folder / name, spans(split, said), _limit(data, said))
        return
    suffix = ".conll" if data.task.kind == "tag" else ".tsv"
    write_file(data, split, said, folder / f"{name}{suffix}")
    if data.task.leaderboard is not None and name in data.task.leaderboard.files:
        ids = [example.id for example in split.examples]
        where = folder / "leaderboard"
        where.mkdir(exist_ok=True)
        outputs.leaderboard(where, data.task, name, ids, predictions(data, split, said))


def write_file(data: Data, split: Split, said: Found, path: str | Path) -> None:
    """Writes one file of predictions: JSON id -> text of questions, CoNLL columns of tags, else TSV."""
    if data.task.kind == "qa":
        answered, limit = spans(split, said), _limit(data, said)
        texts = answered.texts if limit is None else answered.with_threshold(limit)
        files.write_json(path, texts)
        return
    found = predictions(data, split, said)
    if data.task.kind == "tag":
        # The tags are the model's own; rewriting them would hide how it writes entities.
        outputs.tagged(path, split.examples, found, scheme=None)
    else:
        outputs.labels(path, [example.id for example in split.examples], found)


def _limit(data: Data, said: Found) -> float | None:
    return null_threshold(said) if data.task.impossible else None
