"""Metrics alone: a file of references and a file of predictions give the official scores."""

from collections.abc import Mapping
from typing import Any

from electra_jax import userfile
from electra_jax.finetune import own
from electra_jax.finetune.kinds import table as kinds
from electra_jax.spec import UserError, unknown_name
from electra_jax.tasks import custom, outputs, qa_metrics
from electra_jax.tasks import task as tasks
from electra_jax.tasks.known import catalog
from electra_jax.tasks.task import Task


def score(
    name: str,
    references: str,
    predictions: str,
    null_odds: str | None = None,
    null_threshold: float = qa_metrics.NULL_THRESHOLD,
    columns: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The scores of a file of predictions.

    `name`: a task, the file of a user's own task, or a kind of `custom.make` with its `columns` for the user's own
    references.
    `predictions`: JSON id -> text for questions (SQuAD's format); columns with the tag last for
    tagging, the same words in the same order (CLUENER's JSON lines for CLUENER); else a table with
    the columns index (or id) and prediction. Examples without an id of their own have their row
    number, from 0. Raises UserError for ids that are unknown, missing (but for questions, which
    count as wrong) or there twice.
    """
    task = _task(name, columns or {})
    kind = kinds.get(task.kind)
    task = kind.as_written(task)
    examples = _references(task, references, predictions)
    task = kind.for_scoring(task, examples)
    ids = [example.id for example in examples]
    if len(set(ids)) < len(ids):
        twice = next(key for key in ids if ids.count(key) > 1)
        raise UserError(f"{references}: two examples have the id {twice}")
    if null_odds is not None and task.metrics[0] != "squad2":
        raise UserError(f"task {task.name} has no impossible questions, so no null odds")
    return kind.score_file(task, predictions, examples, null_odds, null_threshold)


def _references(task: Task, references: str, predictions: str) -> list[Any]:
    """The labelled examples: without the rows that official files have broken, as dev is read, or
    with them where the predictions have them too, as test is."""
    examples = task.read(references, "dev", carry_on=True)
    if kinds.get(task.kind).suffix == ".tsv":
        strange = outputs.ids_of(predictions) - {example.id for example in examples}
        if strange:
            every = task.read(references, "test", carry_on=True)
            if tasks.labelled(every) and strange <= {example.id for example in every}:
                return every
    return examples


def _task(name: str, columns: Mapping[str, Any]) -> Task:
    if userfile.is_file(name) and not columns:
        return own.load(name)
    if name in custom.MAKERS:
        return custom.make(name, **columns)
    known = (*catalog.TASKS, *custom.MAKERS)
    if columns:
        raise UserError(f"task {name} knows its columns; leave {', '.join(columns)} out")
    try:
        return catalog.get(name)
    except UserError:
        raise unknown_name("task", name, known) from None
