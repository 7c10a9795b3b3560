"""Metrics alone: a file of references and a file of predictions give the official scores."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from electra_jax.spec import UserError, unknown_name
from electra_jax.tasks import custom, metrics, outputs, qa_metrics, tags
from electra_jax.tasks import task as tasks
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.files import tables, tagfiles
from electra_jax.tasks.files.tagcolumns import CONLLU
from electra_jax.tasks.files.tagfiles import Conll
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

    `name`: a task, or a kind of `custom.make` with its `columns` for the user's own references.
    `predictions`: JSON id -> text for questions (SQuAD's format); columns with the tag last for
    tagging, the same words in the same order (CLUENER's JSON lines for CLUENER); else a table with
    the columns index (or id) and prediction. Examples without an id of their own have their row
    number, from 0. Raises UserError for ids that are unknown, missing (but for questions, which
    count as wrong) or there twice.
    """
    task = _task(name, columns or {})
    if task.kind == "tag":  # as written: conlleval's token accuracy depends on it
        layout = tasks.as_written(task.layout)
        if layout != task.layout:
            task = dataclasses.replace(task, layout=layout, labels=None)
    examples = _references(task, references, predictions)
    if task.kind == "tag":
        task = tasks.for_tags(task, [tag for example in examples for tag in example.tags or ()])
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
        if metrics.OFFICIAL in task.metrics and tables.is_json(predictions):
            return _entities(task, predictions, examples)
        return _tagged(task, predictions, examples)
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
    wanted = task.wanted("dev")
    classes = [wanted.label(f"{predictions}: id {i}", text) for i, text in _both(ids, said)]
    strange = set(classes) - {example.label for example in examples}
    if task.labels is None and strange:  # classes of the training data that this file has none of
        print(
            f"{predictions}: {sum(c in strange for c in classes)} predictions are classes that no "
            f"reference has, so wrong: {', '.join(sorted(map(str, strange))[:5])}",
            file=sys.stderr,
        )
    return metrics.score(task, examples, classes)


def _references(task: Task, references: str, predictions: str) -> list[Any]:
    """The labelled examples: without the rows that official files have broken, as dev is read, or
    with them where the predictions have them too, as test is."""
    examples = task.read(references, "dev", carry_on=True)
    if task.kind in ("classify", "regress"):
        strange = outputs.ids_of(predictions) - {example.id for example in examples}
        if strange:
            every = task.read(references, "test", carry_on=True)
            if tasks.labelled(every) and strange <= {example.id for example in every}:
                return every
    return examples


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


def _tagged(task: Task, path: str, examples: list[TagExample]) -> dict[str, Any]:
    """The scores of a file of tags, if its words are those of the references."""
    named = tables.has_lists(path) or tables.suffix(path) in CONLLU
    columns = task if named else dataclasses.replace(task, layout=_COLUMNS, labels=None)
    said = _sentences(columns, path, examples)
    found = metrics.score(task, examples, said)
    golds = [example.tags or () for example in examples]
    _tell_strange_tags(path, golds, said)
    if task.metrics[0] != "entities":
        return found
    if not named and _width(path) > 2:
        # What finetune and predict write, and conlleval reads: the right tag before the predicted
        # one, in the scheme of the model. Accuracy depends on the scheme; F1 does not.
        layout = dataclasses.replace(_COLUMNS, tag=-2)
        theirs = _sentences(dataclasses.replace(columns, layout=layout), path, examples)
        if list(map(tags.spans, theirs)) == list(map(tags.spans, golds)):
            return found | {"accuracy": metrics.token_accuracy(theirs, said)}
    if any(
        tuple(gold) != tuple(guess) and tags.spans(gold) == tags.spans(guess)
        for gold, guess in zip(golds, said, strict=True)
    ):
        print(
            f"{path}: tags are written in another scheme than the references'; accuracy compares them as "
            "they are written, F1 by their meaning",
            file=sys.stderr,
        )
    return found


def _tell_strange_tags(
    path: str, golds: Sequence[Sequence[str]], said: Sequence[Sequence[str]]
) -> None:
    """Says which predicted tags, or types of entity, no reference has."""
    known, found = ({tag for tags_N in each for tag in tags_N} for each in (golds, said))
    if tags.mark_entities(known) and tags.mark_entities(found):
        known, found = set(tags.types(known)), set(tags.types(found))
    if strange := sorted(found - known):
        print(
            f"{path}: no reference has {', '.join(strange[:5])}{', ...' * (len(strange) > 5)}, so these "
            "predictions are wrong",
            file=sys.stderr,
        )


def _width(path: str) -> int:
    """Columns of the first word's line."""
    return next((len(text.split()) for _, text in tables.numbered(path) if text.strip()), 0)


def _sentences(task: Task, path: str, examples: list[TagExample]) -> list[tuple[str, ...]]:
    found = task.read(path, "dev")
    _check_sentences(path, len(found), examples)
    for gold, guess in zip(examples, found, strict=True):
        if len(gold.words) != len(guess.words):
            raise UserError(
                f"{path}: sentence {int(guess.id) + 1} has {len(guess.words)} words, in the "
                f"references {len(gold.words)}"
            )
    return [example.tags for example in found]


def _check_sentences(path: str, count: int, examples: list[TagExample]) -> None:
    if count != len(examples):
        raise UserError(f"{path}: found {count} sentences; the references have {len(examples)}")


def _entities(task: Task, path: str, examples: list[TagExample]) -> dict[str, Any]:
    """The scores of CLUENER's JSON lines, in the order of the references.

    {"label": {type: {text: [[first, last], ...]}}}; other keys are not needed. Places are not
    either: without them, or with wrong ones, the official score alone is given.
    """
    lines = list(tables.objects(path))
    _check_sentences(path, len(lines), examples)
    found: list[set[metrics.Surface]] = []
    tagged: list[tuple[str, ...]] = []
    placed = True
    wanted = task.wanted("dev")
    for (line, row), example in zip(lines, examples, strict=True):
        where, said = f"{path}:{line}", row.get("label")
        if not isinstance(said, dict):
            raise UserError(f"{where}: no object 'label', type -> text -> places")
        for kind, texts in said.items():
            tagfiles.check_type(where, kind, wanted)
            if not isinstance(texts, dict | list) or not all(isinstance(t, str) for t in texts):
                raise UserError(f"{where}: {kind!r} holds no texts")
        found.append({(kind, text) for kind, texts in said.items() for text in texts})
        spans = _places(said, "".join(example.words))
        placed = placed and spans is not None
        tagged.append(tags.write(tagfiles.apart(spans or []), len(example.words), "iob2"))
    official = metrics.cluener_official(task, examples, found)
    if not placed:
        return {metrics.OFFICIAL: official}
    return metrics.score(task, examples, tagged) | {metrics.OFFICIAL: official}


def _places(said: Mapping[str, Any], sentence: str) -> list[tags.Span] | None:
    """The entities by their characters; None where one is not where it says."""
    spans = []
    for kind, texts in said.items():
        for text in texts:
            places = texts[text] if isinstance(texts, dict) else None
            if not isinstance(places, list) or not places:
                return None
            for place in places:
                if not isinstance(place, list) or [type(at) for at in place] != [int, int]:
                    return None
                first, last = place
                if first < 0 or not text or sentence[first : last + 1] != text:
                    return None
                spans.append(tags.Span(kind, first, last + 1))
    return spans


def _choice(path: str, index: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"{path}: id {index} has {text!r}; expected the number of a choice, from 0")
    return int(text)


def _both(ids: list[str], said: list[str]) -> Iterator[tuple[str, str]]:
    return zip(ids, said, strict=True)
