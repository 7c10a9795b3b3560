"""The user's own files as a task, by column names: no code."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from electra_jax.spec import UserError, check_choice
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.choicefiles import ChoiceTable
from electra_jax.tasks.files.qafiles import QaTable, SquadJson
from electra_jax.tasks.files.relationfiles import MARKERS, Markers, Relations
from electra_jax.tasks.files.tagfiles import Conll, TagLists
from electra_jax.tasks.files.textfiles import Table
from electra_jax.tasks.tags import SCHEMES
from electra_jax.tasks.task import Either, Task


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the columns of a user's own files; None is the usual name. A name `a.b` is b inside an object a."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    id: str | None = None
    labels: Sequence[str] | None = None
    score_range: tuple[float, float] | None = None
    words: str | None = None
    tags: str | None = None
    tag_names: Sequence[str] | None = None
    scheme: str | None = "iob2"
    question: str | None = None
    context: str | None = None
    answer: str | None = None
    answer_start: str | None = None
    choices: Sequence[str] | None = None
    positive: str | None = None
    negative: str | None = None
    markers: Markers = MARKERS

    def __post_init__(self) -> None:
        if self.scheme is not None:
            check_choice("scheme", self.scheme, SCHEMES)

    @property
    def ids(self) -> tuple[str, ...]:
        """The names that the column of ids may have."""
        return (self.id,) if self.id else ("id", "index")

    def table(self) -> Table:
        """Rows with a text, maybe another, and a label."""
        return Table(
            text=(self.text or "text",),
            pair=(self.pair,) if self.pair else (),
            label=(self.label or "label",),
            id=self.ids,
        )

    def named(self, **columns: str | None) -> dict[str, tuple[str, ...]]:
        """Those that are given, as layouts take them."""
        return {name: (value,) for name, value in columns.items() if value}


def _classify(c: Columns) -> dict[str, Any]:
    """Rows with `text`, `pair` (if given) and `label`."""
    names = ("accuracy", "macro_f1", "mcc") + (("f1",) if c.positive else ())
    return {
        "kind": "classify",
        "layout": c.table(),
        "metrics": names,
        "main_metric": "f1" if c.positive else "accuracy",
        "positive": c.positive,
    }


def _regress(c: Columns) -> dict[str, Any]:
    """The same, with a number for a label."""
    return {
        "kind": "regress",
        "numbers": True,
        "layout": c.table(),
        "metrics": ("pearson", "spearman", "mse"),
        "main_metric": "spearman",
        "score_range": c.score_range,
    }


def _relation(c: Columns) -> dict[str, Any]:
    """Rows with a text or tokens, `head` and `tail` spans and `label`; see relationfiles."""
    return {
        "kind": "classify",
        "layout": Relations(
            markers=c.markers,
            **c.named(text=c.text, label=c.label, id=c.id),
        ),
        "metrics": ("accuracy", "macro_f1", "relation_f1"),
        "main_metric": "relation_f1" if c.negative else "accuracy",
        "negative": c.negative,
    }


def _tag(c: Columns) -> dict[str, Any]:
    """A word a line, `words` and `tags` (or `text` and `label`) being numbers of columns, counted from 0 (0 and -1
    unless given), or names; or rows with lists. `tag_names` are those of tags that are numbers; `scheme` is None for
    tags that mark no entities.
    """
    words, tags = c.words or c.text, c.tags or c.label
    numbers = None if c.tag_names is None else tuple(c.tag_names)
    lists = TagLists(
        scheme=c.scheme,
        id=c.ids,
        names=numbers,
        **c.named(words=words, tags=tags),
    )
    conll = Conll(_column(words), _column(tags), c.scheme, numbers)
    return {
        "kind": "tag",
        "layout": Either(tables.has_lists, lists, conll),
        "metrics": ("entities",) if c.scheme else ("token_accuracy",),
        "main_metric": "f1" if c.scheme else "accuracy",
    }


def _qa(c: Columns) -> dict[str, Any]:
    """SQuAD's JSON, or rows with `question`, `context`, `answer`, `answer_start`."""
    named = c.named(
        question=c.question,
        context=c.context,
        answer=c.answer,
        start=c.answer_start,
        id=c.id,
    )
    return {
        "kind": "qa",
        "layout": Either(_is_squad, SquadJson(), QaTable(**named)),
        "metrics": ("squad2",),
        "main_metric": "f1",
        "impossible": True,
        "max_len": 384,
    }


def _choice(c: Columns) -> dict[str, Any]:
    """Rows with `context`, `question`, `choices` (one column with a list, or several) and `label`."""
    given: dict[str, Any] = dict(
        c.named(context=c.context or c.text, question=c.question, label=c.label, id=c.id)
    )
    if c.choices:
        given |= {"choices": tuple(c.choices), "several": len(c.choices) > 1}
    return {
        "kind": "choice",
        "layout": ChoiceTable(**given),
        "metrics": ("accuracy",),
        "main_metric": "accuracy",
    }


# How the user's own files of a kind are read, and which columns describe them.
MAKERS: dict[str, Callable[[Columns], dict[str, Any]]] = {
    "classify": _classify,
    "regress": _regress,
    "tag": _tag,
    "qa": _qa,
    "choice": _choice,
    "relation": _relation,
}
USES = {
    "classify": ("text", "pair", "label", "id", "labels", "positive"),
    "regress": ("text", "pair", "label", "id", "score_range"),
    "tag": ("words", "tags", "text", "label", "id", "labels", "scheme", "tag_names"),
    "qa": ("question", "context", "answer", "answer_start", "id"),
    "choice": ("context", "text", "question", "choices", "label", "id"),
    "relation": ("text", "label", "id", "labels", "negative"),
}


def make(kind: str, *, epochs: float = 3.0, max_len: int | None = None, **columns: Any) -> Task:
    """A task over files of the user's, `columns` as in `Columns`; rows are those of TSV, CSV, JSON lines and Parquet.

    `labels` None: the classes of the training file. Raises UserError for an unknown kind.
    """
    check_choice("kind", kind, tuple(MAKERS))
    asked = Columns(**columns)
    made = MAKERS[kind](asked)
    return Task(
        name=kind,
        labels=None if asked.labels is None else tuple(asked.labels),
        epochs=epochs,
        **{**made, "max_len": max_len or made.get("max_len", 128)},
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
