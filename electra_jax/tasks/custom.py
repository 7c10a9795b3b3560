"""The user's own files as a task, by column names: no code."""

import re
from collections.abc import Sequence
from typing import Any

from electra_jax.spec import UserError, check_choice
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.choicefiles import ChoiceTable
from electra_jax.tasks.files.qafiles import QaTable, SquadJson
from electra_jax.tasks.files.relationfiles import MARKERS, Markers, Relations
from electra_jax.tasks.files.tagfiles import Conll, TagLists
from electra_jax.tasks.files.textfiles import Table
from electra_jax.tasks.tags import SCHEMES
from electra_jax.tasks.task import Either, Layout, Task

# What describes the files of each kind; the rest of the section `data` is another kind's.
USES = {
    "classify": ("text", "pair", "label", "id", "labels", "positive"),
    "regress": ("text", "pair", "label", "id", "score_range"),
    "tag": ("words", "tags", "text", "label", "id", "labels", "scheme", "tag_names"),
    "qa": ("question", "context", "answer", "answer_start", "id"),
    "choice": ("context", "text", "question", "choices", "label", "id"),
    "relation": ("text", "label", "id", "labels", "negative"),
}
KINDS = tuple(USES)


def make(
    kind: str,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    id: str | None = None,
    labels: Sequence[str] | None = None,
    score_range: tuple[float, float] | None = None,
    words: str | None = None,
    tags: str | None = None,
    tag_names: Sequence[str] | None = None,
    scheme: str | None = "iob2",
    question: str | None = None,
    context: str | None = None,
    answer: str | None = None,
    answer_start: str | None = None,
    choices: Sequence[str] | None = None,
    positive: str | None = None,
    negative: str | None = None,
    markers: Markers = MARKERS,
    epochs: float = 3.0,
    max_len: int | None = None,
) -> Task:
    """A task over files of the user's; what is None is the usual name of the column.

    Rows are those of TSV, CSV, JSON lines and Parquet; `a.b` is a column b inside an object a.

    kind "classify" and "regress": rows with `text`, `pair` (if given), `label`. "tag": a word a
    line, `words` and `tags` (or `text` and `label`) being numbers of columns, counted from 0 (0 and
    -1 unless given), or names; or rows with lists. `tag_names` are those of tags that are numbers;
    `scheme` is None for tags that mark no entities. "qa": SQuAD's JSON, or rows with `question`,
    `context`, `answer`, `answer_start`. "choice": rows with `context`, `question`, `choices` (one
    column with a list, or several) and `label`. "relation": rows with a text or tokens, `head` and
    `tail` spans and `label`; see relationfiles. `labels` None: the classes of the training file.
    Raises UserError for an unknown kind.
    """
    check_choice("kind", kind, KINDS)
    if scheme is not None:
        check_choice("scheme", scheme, SCHEMES)
    ids = (id,) if id else ("id", "index")
    shared: dict[str, Any] = {
        "name": kind,
        "labels": None if labels is None else tuple(labels),
        "epochs": epochs,
        "max_len": max_len or (384 if kind == "qa" else 128),
    }
    if kind in ("classify", "regress"):
        layout: Layout = Table(
            text=(text or "text",),
            pair=(pair,) if pair else (),
            label=(label or "label",),
            id=ids,
        )
        if kind == "regress":
            metrics = ("pearson", "spearman", "mse")
            return Task(
                kind=kind,
                layout=layout,
                metrics=metrics,
                main_metric="spearman",
                score_range=score_range,
                **shared,
            )
        names: tuple[str, ...] = ("accuracy", "macro_f1", "mcc") + (("f1",) if positive else ())
        main = "f1" if positive else "accuracy"
        return Task(
            kind=kind, layout=layout, metrics=names, main_metric=main, positive=positive, **shared
        )
    if kind == "relation":
        columns = {"text": text, "label": label, "id": id}
        given: dict[str, Any] = {name: (value,) for name, value in columns.items() if value}
        names = ("accuracy", "macro_f1", "relation_f1")
        return Task(
            kind="classify",
            layout=Relations(markers=markers, **given),
            metrics=names,
            main_metric="relation_f1" if negative else "accuracy",
            negative=negative,
            **shared,
        )
    if kind == "tag":
        by_name = {"words": words or text, "tags": tags or label}
        named = {key: (value,) for key, value in by_name.items() if value}
        numbers = None if tag_names is None else tuple(tag_names)
        lists = TagLists(scheme=scheme, id=ids, names=numbers, **named)
        conll = Conll(_column(by_name["words"]), _column(by_name["tags"]), scheme, numbers)
        names = ("entities",) if scheme else ("token_accuracy",)
        return Task(
            kind=kind,
            layout=Either(tables.has_lists, lists, conll),
            metrics=names,
            main_metric="f1" if scheme else "accuracy",
            **shared,
        )
    if kind == "choice":
        columns = {"context": context or text, "question": question, "label": label, "id": id}
        given = {name: (value,) for name, value in columns.items() if value}
        if choices:
            given |= {"choices": tuple(choices), "several": len(choices) > 1}
        layout = ChoiceTable(**given)
        return Task(
            kind=kind, layout=layout, metrics=("accuracy",), main_metric="accuracy", **shared
        )
    columns = {
        "question": question,
        "context": context,
        "answer": answer,
        "start": answer_start,
        "id": id,
    }
    rows = QaTable(**{name: (value,) for name, value in columns.items() if value})
    return Task(
        kind=kind,
        layout=Either(_is_squad, SquadJson(), rows),
        metrics=("squad2",),
        main_metric="f1",
        impossible=True,
        **shared,
    )


def _column(value: str | None) -> int | str | None:
    """A column's number where it is one, else its name."""
    return int(value) if value and re.fullmatch("-?[0-9]{1,9}", value) else value


def _is_squad(path: str) -> bool:
    """Whether a JSON file is one object with a list "data", not an object a line."""
    if not tables.is_json(path):
        return False
    first = next((line for _, line in tables.numbered(path) if line.strip()), "")
    if first.strip() == "{":
        return True
    try:
        return any("data" in row for _, row in [next(tables.objects(path))])
    except UserError:
        return True  # an object over several lines; SQuAD's reader says what is wrong with it
