"""Files of questions about contexts: SQuAD's JSON, MRQA's JSON lines, and tables by column name."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from electra_jax.spec import UserError
from electra_jax.tasks.examples import QaExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.wanted import Wanted

Names = tuple[str, ...]
NOWHERE = -1  # the place of an answer that is not where the file says


@dataclasses.dataclass(frozen=True)
class SquadJson:
    """SQuAD 1.1 and 2.0, and what follows their layout (CMRC2018, DRCD, KorQuAD, TQuAD, XQuAD)."""

    def read(self, path: str, wanted: Wanted) -> list[QaExample]:
        """The questions of a file; UserError names the question that is at fault."""
        said = tables.document(path)
        if not isinstance(said, dict) or not isinstance(said.get("data"), list):
            raise UserError(f"{path} is not in SQuAD's layout: it has no list 'data'")
        found: list[QaExample] = []
        lost: list[str] = []
        try:
            for article in said["data"]:
                for paragraph in article["paragraphs"]:
                    for qa in paragraph["qas"]:
                        found.append(_squad_question(path, paragraph["context"], qa, wanted, lost))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{path} is not in SQuAD's layout, data[].paragraphs[].qas[]: after {len(found)} "
                f"questions, {_missing(error)}"
            ) from None
        return _finished(path, found, lost, wanted)


@dataclasses.dataclass(frozen=True)
class MrqaJson:
    """MRQA 2019: JSON lines, the first a header; answers with the spans where they were detected.

    Answers of a question without `detected_answers` are looked for in the context.
    """

    def read(self, path: str, wanted: Wanted) -> list[QaExample]:
        """The questions of a file; UserError names the line that is at fault."""
        found: list[QaExample] = []
        lost: list[str] = []
        for line, row in tables.objects(path):
            where = f"{path}:{line}"
            if "header" in row:
                continue
            context = wanted.text(row.get("context"), where, "context")
            try:
                found += [
                    _mrqa_question(where, context, qa, wanted, lost) for qa in row.get("qas", ())
                ]
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise UserError(
                    f"{where} is not in MRQA's layout: in qas[], {_missing(error)}"
                ) from None
        return _finished(path, found, lost, wanted)


@dataclasses.dataclass(frozen=True)
class QaTable:
    """A TSV, CSV, JSON-lines or Parquet file with a question a row.

    The answer is a text, a list of texts, or {"text": [...], "answer_start": [...]} as in the
    `datasets` library. Without a column `start` it is looked for in the context, where it must
    occur. No answer means an impossible question; null does, where other rows have an answer.
    """

    question: Names = ("question",)
    context: Names = ("context",)
    answer: Names = ("answers", "answer")
    start: Names = ("answer_start",)
    id: Names = ("id",)

    def read(self, path: str, wanted: Wanted) -> list[QaExample]:
        """The questions of a file; UserError names the line that is at fault."""
        found: list[QaExample] = []
        lost: list[str] = []
        unsaid = 0  # rows whose answer is null
        for number, (line, row) in enumerate(tables.rows(path)):
            where = f"{path}:{line}"
            question, context = (
                wanted.text(row[tables.column(path, row, names, flag)], where, names[0])
                for names, flag in (
                    (self.question, "--config.data.question"),
                    (self.context, "--config.data.context"),
                )
            )
            name = next((name for name in self.id if name in row), None)
            here = str(row[name] if name else number)
            said: Any = None
            if wanted.labelled or any(name in row for name in self.answer):
                said = row[tables.column(path, row, self.answer, "--config.data.answer")]
            start = next((row[name] for name in self.start if name in row), None)
            pairs = list(_pairs(where, said, start, context))
            answers = tuple(_placed(here, text, at, context, lost) for text, at in pairs)
            unsaid += said is None
            impossible = not answers and (said is not None or wanted.labelled)
            if impossible and not wanted.impossible:
                raise UserError(f"{where}: no answer; this task has no impossible questions")
            found.append(QaExample(here, question, context, answers, impossible))
        if unsaid == len(found) and wanted.labelled:
            raise UserError(f"{path}: no question has an answer; every one is null")
        if 0 < unsaid < len(found) and wanted.impossible:  # then null says that there is none
            found = [dataclasses.replace(q, impossible=not q.answers) for q in found]
        return _finished(path, found, lost, wanted)


def _mrqa_question(
    where: str, context: str, qa: dict[str, Any], wanted: Wanted, lost: list[str]
) -> QaExample:
    places = []
    for answer in qa.get("detected_answers", ()):
        for first, last in answer["char_spans"]:
            places.append((context[first : last + 1], first))
            if not _same(places[-1][0], answer["text"]):
                lost.append(_misplaced(str(qa["qid"]), answer["text"], first, context))
                places[-1] = (answer["text"], NOWHERE)
    golds = tuple(qa.get("answers", ()))
    if not places:
        name = str(qa["qid"])
        places = [_placed(name, gold, context.find(gold), context, lost) for gold in golds]
    if wanted.labelled and not places:
        raise UserError(f"{where}: question {qa.get('qid')} has no answer")
    question = wanted.text(qa.get("question"), where, "question")
    return QaExample(str(qa["qid"]), question, context, tuple(places), references=golds)


def _squad_question(
    path: str, context: str, qa: dict[str, Any], wanted: Wanted, lost: list[str]
) -> QaExample:
    where = f"{path}, question {qa['id']}"
    impossible = bool(qa.get("is_impossible", False))
    answers = [] if impossible else qa.get("answers", [])
    if impossible and not wanted.impossible:
        raise UserError(f"{where} is impossible to answer; this task has none such. Use squad2")
    if wanted.labelled and not impossible and not answers:
        raise UserError(f"{where} has no answer and is not marked is_impossible")
    placed = tuple(
        _placed(str(qa["id"]), answer["text"], _start(where, answer["answer_start"]), context, lost)
        for answer in answers
    )
    question = wanted.text(qa["question"], where, "question")
    return QaExample(
        str(qa["id"]), question, wanted.text(context, where, "context"), placed, impossible
    )


def _missing(error: Exception) -> str:
    """What a layout lacks, in words."""
    if isinstance(error, KeyError):
        return f"an object has no {error.args[0]!r}"
    return "a value is of another type than the layout's"


def _start(where: str, value: object) -> int:
    """A place in a context: a number, or one that is written as a text."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise UserError(f"{where}: answer start {value!r} is no whole number")
    return value


def _placed(question: str, text: str, start: int, context: str, lost: list[str]) -> tuple[str, int]:
    """The answer with its place; NOWHERE, and an entry in `lost`, when it is not there."""
    if start >= 0 and text and _same(context[start : start + len(text)], text):
        return text, start
    lost.append(_misplaced(question, text, start, context))
    return text, NOWHERE


def _misplaced(question: str, text: str, start: int, context: str) -> str:
    if start < 0 and text not in context:
        return f"question {question}: {text!r} is nowhere in its context"
    there = context[start : start + len(text)] if start >= 0 else ""
    return f"question {question}: {text!r} is not at character {start}, which has {there!r}"


def _same(there: str, text: str) -> bool:
    """Equal but for case and white space, as the original accepts answers."""
    return there == text or there.lower().split() == text.lower().split()


def _pairs(where: str, said: Any, start: Any, context: str) -> Iterator[tuple[str, int]]:
    starts: list[Any] = start if isinstance(start, list) else [] if start in (None, "") else [start]
    if isinstance(said, dict):
        said, starts = said.get("text", []), said.get("answer_start", [])
    texts = [said] if isinstance(said, str) else (said or [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: the answer is neither a text nor a list of texts")
    texts = [text for text in texts if text]
    if starts and len(starts) != len(texts):
        raise UserError(f"{where}: found {len(starts)} answer starts for {len(texts)} answers")
    for number, text in enumerate(texts):
        yield text, _start(where, starts[number]) if starts else context.find(text)


def _finished(
    path: str, found: list[QaExample], lost: list[str], wanted: Wanted
) -> list[QaExample]:
    """The questions, if they are some, have ids of their own, and answers where they should be."""
    if not found:
        raise UserError(f"{path} has no question")
    seen: set[str] = set()
    for example in found:
        if example.id in seen:
            raise UserError(f"{path}: two questions have the id {example.id}")
        seen.add(example.id)
    if lost:
        total = sum(len(example.answers) for example in found)
        said = f"{path}: {len(lost)} of {total} answers are not where the file says; {lost[0]}"
        if not wanted.carry_on:
            raise UserError(
                f"{said}. Mend the file, or carry on with --config.data.carry_on=true: such answers "
                "still count as references, but are not trained on"
            )
        wanted.notes.append(said)
    return found
