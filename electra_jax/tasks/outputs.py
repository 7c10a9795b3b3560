"""Predictions as files: leaderboard TSVs, SQuAD's JSON, CoNLL columns; and reading them back."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.files import write_json, write_text
from electra_jax.spec import UserError
from electra_jax.tasks import tags
from electra_jax.tasks.answers import Answers
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.wanted import written
from electra_jax.tasks.task import Task

_ID = ("index", "id")
_PREDICTION = ("prediction", "label")


def labels(
    path: str | Path,
    ids: Sequence[str],
    predictions: Sequence[Any],
    more: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Writes a TSV with the columns index and prediction: classes as they are, scores with 6 digits.

    This is GLUE's format, and what `read_labels` reads. `more`: further columns, a value an example.
    """
    columns = {"index": ids, "prediction": predictions, **(more or {})}
    rows = zip(*(map(_shown, values) for values in columns.values()), strict=True)
    write_text(path, "".join("\t".join(row) + "\n" for row in ((*columns,), *rows)))


def _shown(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def leaderboard(
    folder: str | Path, task: Task, split: str, ids: Sequence[str], predictions: Sequence[Any]
) -> Path | None:
    """Writes the split's file for the task's leaderboard, under its official name; None if it has none.

    `predictions` are as the leaderboard takes them (`Kind.for_leaderboard`).
    """
    board = task.leaderboard
    if board is None or split not in board.files:
        return None
    path = Path(folder) / board.files[split]
    labels(path, ids, predictions)
    return path


def answers(folder: str | Path, found: Answers, threshold: float | None = None) -> None:
    """Writes predictions.json, nbest_predictions.json and null_odds.json, as SQuAD's scripts take them.

    predictions.json has the best text of every question, whatever its odds of no answer: the
    scripts find the best threshold on the odds from those. With a `threshold` (SQuAD 2.0),
    thresholded.json has the texts to hand in: "" where the odds are above it.
    """
    write_json(os.path.join(folder, "predictions.json"), found.texts)
    if threshold is not None:
        write_json(os.path.join(folder, "thresholded.json"), found.with_threshold(threshold))
    write_json(os.path.join(folder, "nbest_predictions.json"), found.n_best)
    write_json(os.path.join(folder, "null_odds.json"), found.null_odds)


def tagged(
    path: str | Path,
    examples: Sequence[TagExample],
    predictions: Sequence[Sequence[str]],
    scheme: str | None = "iob2",
) -> None:
    """Writes a word a line with its tag, and the right tag between them where it is known: what
    conlleval reads. Entity tags are written in `scheme`; None leaves them alone."""
    parts = []
    for example, guess in zip(examples, predictions, strict=True):
        columns: list[Sequence[str]] = [example.words]
        for said in (example.tags, guess):
            if said is not None:
                columns.append(said if scheme is None else tags.rewrite(said, scheme))
        lines = (" ".join(_solid(word) for word in row) for row in zip(*columns, strict=True))
        parts.append("\n".join(lines) + "\n\n")
    write_text(path, "".join(parts))


def tagged_lists(
    path: str | Path,
    examples: Sequence[TagExample],
    predictions: Sequence[Sequence[str]],
    classes: Sequence[str],
    probabilities: Sequence[np.ndarray],
) -> None:
    """Writes JSON lines with id, words, tags, classes, and probabilities [words][classes]."""
    lines = [
        {
            "id": example.id,
            "words": example.words,
            "tags": guess,
            "classes": classes,
            "probabilities": np.round(shares, 6).tolist(),
        }
        for example, guess, shares in zip(examples, predictions, probabilities, strict=True)
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _solid(word: str) -> str:
    """A word without white space inside, as columns need it (characters of Chinese text may be it)."""
    return "".join("_" if char.isspace() else char for char in word) or "_"


def read_labels(path: str, ids: Sequence[str]) -> list[str]:
    """The predictions of a file of `labels`, TSV, CSV or JSON lines, in the order of `ids`.

    Raises UserError for ids that are unknown, missing or there twice.
    """
    found: dict[str, str] = {}
    for line, row in tables.rows(path):
        key = str(row[tables.column(path, row, _ID)])
        if key in found:
            raise UserError(f"{path}:{line}: a second prediction for id {key}")
        found[key] = written(f"{path}:{line}", row[tables.column(path, row, _PREDICTION)])
        if not found[key]:
            raise UserError(f"{path}:{line}: id {key} has no prediction")
    check_ids(path, list(found), ids)
    missing = [key for key in ids if key not in found]
    if missing:
        raise UserError(
            f"{path}: no prediction for {len(missing)} of {len(ids)} examples, the first is id "
            f"{missing[0]}"
        )
    return [found[key] for key in ids]


def ids_of(path: str) -> set[str]:
    """The ids of a file of `labels`."""
    return {str(row[tables.column(path, row, _ID)]) for _, row in tables.rows(path)}


def read_answers(path: str, ids: Sequence[str], kind: type = str) -> dict[str, Any]:
    """The JSON object question -> `kind` (texts, or the odds of no answer: float).

    Raises UserError for questions that are unknown or there twice; missing ones are for the scorer
    to count.
    """
    text = "\n".join(line for _, line in tables.numbered(path))
    twice: list[str] = []

    def pairs(said: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in said]
        if len(set(keys)) < len(keys):
            twice.extend(key for key in set(keys) if keys.count(key) > 1)
        return dict(said)

    found = tables.parsed(path, text, pairs=pairs)
    if not isinstance(found, dict):
        raise UserError(f"{path}: found a {type(found).__name__}; expected an object, id -> answer")
    if twice:
        raise UserError(f"{path}: a second prediction for question {sorted(twice)[0]}")
    for key, value in found.items():
        if not isinstance(value, (int, float) if kind is float else kind) or value is True:
            raise UserError(
                f"{path}: question {key} has a {type(value).__name__}; expected "
                f"{'a number' if kind is float else 'a text'}"
            )
    check_ids(path, list(found), ids)
    return found


def check_ids(path: str, found: Sequence[str], ids: Sequence[str]) -> None:
    """Raises UserError for ids that the references do not have."""
    known = set(ids)
    unknown = [key for key in found if key not in known]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(found)} ids are none of the references', the first is "
            f"{unknown[0]}; the references begin with {ids[0]}"
        )
