"""From what a head says to what it means: predictions, their scores, and the files they go to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from electra_jax import files
from electra_jax.finetune.forward import Found
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.plan import Split
from electra_jax.spec import UserError
from electra_jax.tasks import answers, metrics, outputs
from electra_jax.tasks.answers import Answers, Candidates
from electra_jax.tasks.task import Task


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
    return [[data.labels[i] for i in best[at]] for at in _word_tokens(split)]


def probabilities(data: Data, split: Split, said: Found) -> list[np.ndarray]:
    """Of every example the classes' or choices' probabilities [classes]; of tags [words, classes]."""
    logits = said["logits"].astype(np.float64)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return [shares[at] for at in _word_tokens(split)] if data.task.kind == "tag" else list(shares)


def _word_tokens(split: Split) -> list[np.ndarray]:
    """int [words] of every example: where in the outputs a word's first token stands."""
    made = split.features
    assert made.words is not None
    found: list[list[np.ndarray]] = [[] for _ in split.examples]
    for row, places in enumerate(made.words):
        found[made.example[row]].append(split.rows.begin[row] + places)
    return [np.concatenate([np.zeros(0, np.int64), *parts]) for parts in found]


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

    Questions give a folder NAME (see `outputs.answers`); tagging NAME.conll; the others NAME.tsv.
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


def write_file(
    data: Data, split: Split, said: Found, path: str | Path, with_probabilities: bool = False
) -> None:
    """Writes one file of predictions: JSON id -> text of questions, CoNLL columns of tags, else TSV.

    Classes that are numbers have what they mean in a column "name". `with_probabilities`: a column
    "p_CLASS" for every class or choice; of tags JSON lines (`outputs.tagged_lists`); of questions
    the n best texts with theirs, and the odds of no answer.
    """
    task, ids = data.task, [example.id for example in split.examples]
    if task.kind == "qa":
        answered, limit = spans(split, said), _limit(data, said)
        texts = answered.texts if limit is None else answered.with_threshold(limit)
        every: dict[str, Any] = {
            key: {
                "text": text,
                "null_odds": answered.null_odds[key],
                "n_best": answered.n_best[key],
            }
            for key, text in texts.items()
        }
        files.write_json(path, every if with_probabilities else texts)
        return
    found = predictions(data, split, said)
    shares = probabilities(data, split, said) if with_probabilities else []
    if task.kind == "tag":
        if with_probabilities:
            outputs.tagged_lists(path, split.examples, found, data.labels, shares)
        else:  # the tags are the model's own; rewriting them would hide how it writes entities
            outputs.tagged(path, split.examples, found, scheme=None)
        return
    more: dict[str, list[Any]] = {}
    if task.kind == "classify" and task.names:
        more["name"] = [task.names.get(said, said) for said in found]
    if with_probabilities:
        names = data.labels or range(len(shares[0]) if shares else 0)
        columns = np.array(shares).T.tolist()
        more |= {f"p_{name}": column for name, column in zip(names, columns, strict=True)}
    if task.kind == "regress":  # every digit: rounded scores tie, which changes rank correlations
        found = [repr(score) for score in found]
    outputs.labels(path, ids, found, more)


def check_probabilities(task: Task, path: str | Path) -> None:
    """UserError for a task without probabilities, or a file name that says something else than JSON."""
    if task.kind == "regress":
        raise UserError(f"task {task.name} predicts a number, which has no probability")
    if task.kind == "tag" and not str(path).endswith((".jsonl", ".json")):
        raise UserError(
            f"probabilities of tags are JSON lines; give --output {Path(path).with_suffix('.jsonl')}"
        )


def _limit(data: Data, said: Found) -> float | None:
    return null_threshold(said) if data.task.impossible else None
