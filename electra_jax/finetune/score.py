"""Metrics alone: a file of references and a file of predictions give the official scores."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from electra_jax.finetune import custom, metrics, outputs, qa_metrics, tables, tasks
from electra_jax.finetune.tagfiles import Conll
from electra_jax.finetune.tasks import Task
from electra_jax.spec import UserError, unknown_name


def score(
    name: str,
    references: str,
    predictions: str,
    null_odds: str | None = None,
    null_threshold: float = qa_metrics.NULL_THRESHOLD,
    columns: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The scores of a file of predictions.

    `name`: a task, or a kind of `custom.make` with its `columns` for the user's own references.
    `predictions`: JSON id -> text for questions (SQuAD's format); columns with the tag last for
    tagging, the same words in the same order; else a table with the columns index (or id) and
    prediction. Examples without an id of their own have their row number, from 0. Raises UserError
    for ids that are unknown, missing (but for questions, which count as wrong) or there twice.
    """
    task = _task(name, columns or {})
    if task.kind == "tag":  # as written: conlleval's token accuracy depends on it
        task = dataclasses.replace(task, layout=tasks.as_written(task.layout), labels=None)
    examples = task.read(references, "dev", carry_on=True)
    if task.kind == "tag":
        task = tasks.for_tags(task, [tag for example in examples for tag in example.tags])
    ids = [example.id for example in examples]
    if len(set(ids)) < len(ids):
        twice = next(key for key in ids if ids.count(key) > 1)
        raise UserError(f"{references}: two examples have the id {twice}")
    if null_odds is not None and task.metrics[0] != "squad2":
        raise UserError(f"task {task.name} has no impossible questions, so no null odds")
    if task.kind == "qa":
        found = outputs.read_answers(predictions, ids)
        missing = len(ids) - len(found)
        if missing:
            print(f"{predictions}: {missing} questions missing, taken as wrong", file=sys.stderr)
        odds = None if null_odds is None else outputs.read_answers(null_odds, ids, float)
        return metrics.score(task, examples, found, odds, null_threshold)
    if task.kind == "tag":
        return metrics.score(task, examples, _tags(task, predictions, examples))
    said = outputs.read_labels(predictions, ids)
    if task.kind == "regress":
        free = dataclasses.replace(task.wanted("dev"), scores=None)
        return metrics.score(
            task,
            examples,
            [free.label(f"{predictions}: id {i}", text) for i, text in _both(ids, said)],
        )
    if task.kind == "choice":
        return metrics.score(
            task, examples, [_choice(predictions, i, t) for i, t in _both(ids, said)]
        )
    wanted = dataclasses.replace(task.wanted("dev"), labels=tasks.labels_of(task, examples))
    return metrics.score(
        task,
        examples,
        [wanted.label(f"{predictions}: id {i}", text) for i, text in _both(ids, said)],
    )


def _task(name: str, columns: Mapping[str, Any]) -> Task:
    if name in custom.KINDS:
        return custom.make(name, **columns)
    known = (*tasks.names(), *custom.KINDS)
    if columns:
        raise UserError(f"task {name} knows its columns; leave {', '.join(columns)} out")
    try:
        return tasks.get(name)
    except UserError:
        raise unknown_name("task", name, known) from None


_COLUMNS = Conll(scheme=None)


def _tags(task: Task, path: str, examples: list[Any]) -> list[tuple[str, ...]]:
    """The tags of a file, if its words are those of the references."""
    columns = task if tables.has_lists(path) else dataclasses.replace(task, layout=_COLUMNS)
    found = columns.read(path, "dev")
    if len(found) != len(examples):
        raise UserError(
            f"{path}: found {len(found)} sentences; the references have {len(examples)}"
        )
    for gold, guess in zip(examples, found, strict=True):
        if len(gold.words) != len(guess.words):
            raise UserError(
                f"{path}: sentence {int(guess.id) + 1} has {len(guess.words)} words, in the "
                f"references {len(gold.words)}"
            )
    return [example.tags for example in found]


def _choice(path: str, index: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"{path}: id {index} has {text!r}; expected the number of a choice, from 0")
    return int(text)


def _both(ids: list[str], said: list[str]) -> Iterator[tuple[str, str]]:
    return zip(ids, said, strict=True)
