"""Files of multiple choice: tables with a column or a list of choices, and RACE's folders."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterator
from typing import Any

from electra_jax.spec import UserError
from electra_jax.tasks.examples import ChoiceExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.wanted import Wanted

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ChoiceTable:
    """A row an example: a context, perhaps a question, the choices, and which is right.

    `choices` is one column that holds a list (JSON), or several columns with a choice each (SWAG's
    CSV). A question is put before each choice. The label is a number counted from `first`, or a
    letter.
    """

    context: Names = ("context", "article", "passage")
    question: Names = ("question",)
    choices: Names = ("choices", "options", "endings")
    label: Names = ("label", "answer")
    id: Names = ("id",)
    first: int = 0
    several: bool = False

    def read(self, path: str, wanted: Wanted) -> list[ChoiceExample]:
        """The examples of a file; UserError names the line that is at fault."""
        found = []
        for number, (line, row) in enumerate(tables.rows(path)):
            where = f"{path}:{line}"
            column = tables.column(path, row, self.context, "--config.data.context")
            context = wanted.text(row[column], where, "context")
            other = (name for name in self.question if name in row and name != column)
            question = next((row[name] for name in other), "")
            options = self._options(path, row)
            label = None
            if wanted.labelled or any(name in row for name in self.label):
                said = row[tables.column(path, row, self.label, "--label")]
                label = _right(where, said, len(options), self.first, wanted.labelled)
            name = next((name for name in self.id if name in row), None)
            here = str(row[name] if name else number)
            found.append(_example(wanted, where, here, context, question, options, label))
        _check_counts(path, found)
        return found

    def _options(self, path: str, row: tables.Row) -> list[Any]:
        if self.several:
            return [
                row[tables.column(path, row, (name,), "--config.data.choices")]
                for name in self.choices
            ]
        options = row[tables.column(path, row, self.choices, "--config.data.choices")]
        return options if isinstance(options, list) else [options]


@dataclasses.dataclass(frozen=True)
class Race:
    """RACE: folders of .txt files, each a JSON object with an article, questions, options, answers.

    A question with a gap (`_`) is filled with each option; else the option follows it.
    """

    def read(self, path: str, wanted: Wanted) -> list[ChoiceExample]:
        """The questions of a folder (all levels) or of JSON lines of such objects."""
        found: list[ChoiceExample] = []
        for where, row in self._articles(path):
            context = wanted.text(row.get("article"), where, "article")
            questions, options = row.get("questions"), row.get("options")
            answers = row.get("answers")
            if not isinstance(questions, list) or not isinstance(options, list):
                raise UserError(f"{where}: expected the lists 'questions' and 'options'")
            if not all(isinstance(choices, list) for choices in options):
                raise UserError(f"{where}: expected a list of choices for every question")
            if not isinstance(answers, list) and (answers is not None or wanted.labelled):
                raise UserError(f"{where}: no list 'answers'")
            counts = {len(questions), len(options), len(answers or questions)}
            if len(counts) > 1:
                raise UserError(f"{where}: 'questions', 'options', 'answers' differ in length")
            for number, (question, choices) in enumerate(zip(questions, options, strict=True)):
                label = None
                if answers is not None:
                    label = _right(where, answers[number], len(choices), 0, True)
                here = f"{row.get('id', len(found))}-{number}"
                found.append(
                    _example(wanted, where, here, context, question, choices, label, cloze=True)
                )
        _check_counts(path, found)
        return found

    def _articles(self, path: str) -> Iterator[tuple[str, tables.Row]]:
        if os.path.isdir(path):
            for file in sorted(
                glob.glob(os.path.join(glob.escape(path), "**", "*.txt"), recursive=True)
            ):
                row = tables.document(file)
                if not isinstance(row, dict):
                    raise UserError(f"{file}: found a {type(row).__name__}; expected an object")
                yield file, row
        else:
            for line, row in tables.objects(path):
                yield f"{path}:{line}", row


def _example(
    wanted: Wanted,
    where: str,
    here: str,
    context: str,
    question: str,
    options: Any,
    label: int | None,
    cloze: bool = False,
) -> ChoiceExample:
    if not isinstance(options, list) or not isinstance(question, str | None):
        raise UserError(f"{where}: expected a question that is a text, and a list of choices")
    question = question or ""
    if len(options) < 2:
        raise UserError(f"{where}: found {len(options)} choices; expected two or more")
    texts = [wanted.text(option, where, "choice") for option in options]
    if cloze and "_" in question:
        return ChoiceExample(here, context, tuple(question.replace("_", t) for t in texts), label)
    return ChoiceExample(here, context, tuple(f"{question} {t}".strip() for t in texts), label)


def _right(where: str, said: Any, count: int, first: int, labelled: bool) -> int | None:
    """The number of the right choice, counted from 0; None where a test file does not say."""
    text = str(said).strip()
    if len(text) == 1 and "A" <= text <= "Z":
        number = ord(text) - ord("A")
    elif re.fullmatch("[0-9]{1,9}", text):
        number = int(text) - first
    else:
        number = -1
    if 0 <= number < count:
        return number
    if not labelled:
        return None
    raise UserError(f"{where}: label {text!r} is none of the {count} choices")


def _check_counts(path: str, found: list[ChoiceExample]) -> None:
    """Every example must have as many choices as the first: they are one batch."""
    if not found:
        raise UserError(f"{path} has no example")
    for example in found:
        if len(example.choices) != len(found[0].choices):
            raise UserError(
                f"{path}: example {example.id} has {len(example.choices)} choices, the first has "
                f"{len(found[0].choices)}; expected the same number everywhere"
            )
