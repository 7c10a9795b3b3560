"""Files of tags as predictions: columns or JSON lines, compared with the references word by word."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.spec import UserError
from electra_jax.tasks import metrics, tags
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.files import tables, tagfiles
from electra_jax.tasks.files.tagcolumns import CONLLU
from electra_jax.tasks.files.tagfiles import Conll
from electra_jax.tasks.task import Task

_COLUMNS = Conll(scheme=None)


def score_file(task: Task, path: str, examples: Sequence[TagExample]) -> dict[str, Any]:
    """The scores of a file of tags, or of CLUENER's JSON lines, if its words are those of the references."""
    if metrics.OFFICIAL in task.metrics and tables.is_json(path):
        return _entities(task, path, examples)
    return _tagged(task, path, examples)


def _tagged(task: Task, path: str, examples: Sequence[TagExample]) -> dict[str, Any]:
    """The scores of a file of tags, if its words are those of the references."""
    named = tables.has_lists(path) or tables.suffix(path) in CONLLU
    columns = task if named else dataclasses.replace(task, layout=_COLUMNS, labels=None)
    said = _sentences(columns, path, examples)
    found = metrics.of_tags(task, examples, said)
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


def _sentences(task: Task, path: str, examples: Sequence[TagExample]) -> list[tuple[str, ...]]:
    found = task.read(path, "dev")
    _check_sentences(path, len(found), examples)
    for gold, guess in zip(examples, found, strict=True):
        if len(gold.words) != len(guess.words):
            raise UserError(
                f"{path}: sentence {int(guess.id) + 1} has {len(guess.words)} words, in the "
                f"references {len(gold.words)}"
            )
    return [example.tags for example in found]


def _check_sentences(path: str, count: int, examples: Sequence[TagExample]) -> None:
    if count != len(examples):
        raise UserError(f"{path}: found {count} sentences; the references have {len(examples)}")


def _entities(task: Task, path: str, examples: Sequence[TagExample]) -> dict[str, Any]:
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
    return metrics.of_tags(task, examples, tagged) | {metrics.OFFICIAL: official}


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
