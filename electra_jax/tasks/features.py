"""Examples as token ids: rows of different lengths, with the targets that their task has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.spec import UserError
from electra_jax.tasks import windows
from electra_jax.tasks.examples import ChoiceExample, QaExample, TagExample, TextExample
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer

IGNORE = -100  # the target of a position that has none
UNKNOWN = -1  # the class, position or choice of an example without a label

Ints = np.ndarray


@dataclasses.dataclass(frozen=True)
class Features:
    """The rows of a split. Everything is ragged: a batch is padded to its own longest row.

    `ids` and `types`: int32 [l] a row, special tokens included. A row is [CLS] A [SEP], type 0, or
    [CLS] A [SEP] B [SEP], type 1 from B on.

    `group` rows in a row make one unit of a batch: the choices of an example (choice), else 1.
    `lengths` int32 [units]: the longest row of each. `example` int32 [units]: which example it
    comes from; several units may come from one (long questions, long tagged sentences), and they
    are neighbours.

    `targets`, by kind, each with one entry a unit:
      classify  label int32 (UNKNOWN where there is none)
      regress   score float32, in the task's own range (nan where there is none)
      tag       tags: int32 [l] a row, the class at the first token of a word, else IGNORE
      qa        start, end int32: tokens of the row, both 0 where this window does not hold the
                answer or there is none, UNKNOWN where the file has none; impossible int32
      choice    label int32: which of the group's rows is right (UNKNOWN where there is none)

    `words` (tag only): int32 [w] a row, the positions of the first tokens of its words;
    `first_word` int32 [units]: which word of the example the first of them is.
    `windows` (qa only): where tokens stand in the context, for `answers.decode`.
    """

    kind: str
    ids: list[Ints]
    types: list[Ints]
    lengths: Ints
    example: Ints
    targets: Mapping[str, Any]
    group: int = 1
    words: list[Ints] | None = None
    first_word: Ints | None = None
    windows: "windows.Windows | None" = None

    def __len__(self) -> int:
        return len(self.lengths)


def build(
    task: Task,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    max_len: int,
    labels: Sequence[str] = (),
    training: bool = False,
    doc_stride: int = windows.DOC_STRIDE,
    max_question: int = windows.MAX_QUESTION,
) -> Features:
    """The features of `examples` (of the task's kind), rows of at most `max_len` tokens.

    `labels`: the classes in order, of `tasks.labels_of`. `training`: questions whose answer is not
    where the file says give no rows; nothing else depends on it. Raises UserError for a `max_len`
    without room, and for labels that are not among `labels`.
    """
    if max_len < 8:
        raise UserError(f"max_len {max_len} leaves no room for a text; expected 8 or more")
    ids = {label: number for number, label in enumerate(labels)}
    if task.kind == "tag":
        return _tagged(examples, tokenizer, max_len, ids)
    if task.kind == "qa":
        return _questions(examples, tokenizer, max_len, training, doc_stride, max_question)
    if task.kind == "choice":
        return _choices(examples, tokenizer, max_len)
    return _texts(task, examples, tokenizer, max_len, ids)


def _texts(
    task: Task,
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    max_len: int,
    classes: Mapping[str, int],
) -> Features:
    rows, types = _rows([(e.text, e.pair) for e in examples], tokenizer, max_len)
    targets: dict[str, Any]
    if task.kind == "regress":
        scores = [np.nan if e.label is None else e.label for e in examples]
        targets = {"score": np.array(scores, np.float32)}
    else:
        targets = {"label": np.array([_class(e.id, e.label, classes) for e in examples], np.int32)}
    count = np.arange(len(rows), dtype=np.int32)
    return Features(task.kind, rows, types, _lengths(rows), count, targets)


def _choices(examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_len: int) -> Features:
    group = len(examples[0].choices) if examples else 1
    pairs: list[tuple[str, str | None]] = [(e.context, c) for e in examples for c in e.choices]
    if len(pairs) != group * len(examples):
        raise UserError("the examples have different numbers of choices; expected one number")
    rows, types = _rows(pairs, tokenizer, max_len)
    label = np.array([UNKNOWN if e.label is None else e.label for e in examples], np.int32)
    lengths = _lengths(rows).reshape(-1, group).max(1, initial=0)
    count = np.arange(len(examples), dtype=np.int32)
    return Features("choice", rows, types, lengths, count, {"label": label}, group)


def _tagged(
    examples: Sequence[TagExample],
    tokenizer: Tokenizer,
    max_len: int,
    classes: Mapping[str, int],
) -> Features:
    """A row holds whole words. A sentence that does not fit goes on in the next row.

    A word that gives no token (white space, characters that cleaning removes) becomes [UNK], so
    that every word has its place; one of more tokens than a row has is cut.
    """
    cls, sep, unk = tokenizer.special.cls, tokenizer.special.sep, tokenizer.special.unk
    all_words = [word for example in examples for word in example.words]
    flat, counts = tokenizer.encode_flat(all_words)
    pieces = np.split(flat, np.cumsum(counts)[:-1]) if all_words else []
    rows: list[Ints] = []
    places: list[Ints] = []
    targets: list[Ints] = []
    example_of: list[int] = []
    first_word: list[int] = []
    taken = 0
    for number, example in enumerate(examples):
        words = pieces[taken : taken + len(example.words)]
        taken += len(example.words)
        tags = [UNKNOWN] * len(words)
        if example.tags is not None:
            tags = [_class(example.id, tag, classes) for tag in example.tags]
        at = 0
        while at < len(words):
            row, starts = [cls], []
            begun = at
            while at < len(words):
                word = words[at][: max_len - 2].tolist() or [unk]
                if len(row) + len(word) + 1 > max_len:
                    break
                starts.append(len(row))
                row += word
                at += 1
            row.append(sep)
            target = np.full(len(row), IGNORE, np.int32)
            known = [tag if tag != UNKNOWN else IGNORE for tag in tags[begun:at]]
            target[starts] = known
            rows.append(np.array(row, np.int32))
            places.append(np.array(starts, np.int32))
            targets.append(target)
            example_of.append(number)
            first_word.append(begun)
    types = [np.zeros(len(row), np.int32) for row in rows]
    return Features(
        "tag",
        rows,
        types,
        _lengths(rows),
        np.array(example_of, np.int32),
        {"tags": targets},
        words=places,
        first_word=np.array(first_word, np.int32),
    )


def _questions(
    examples: Sequence[QaExample],
    tokenizer: Tokenizer,
    max_len: int,
    training: bool,
    doc_stride: int,
    max_question: int,
) -> Features:
    made = windows.build(examples, tokenizer, max_len, doc_stride, max_question, training)
    types = [
        (np.arange(len(row)) >= first).astype(np.int32)
        for row, first in zip(made.ids, made.windows.first, strict=True)
    ]
    targets = {"start": made.start, "end": made.end, "impossible": made.impossible}
    example = made.windows.example
    return Features(
        "qa", made.ids, types, _lengths(made.ids), example, targets, windows=made.windows
    )


def _rows(
    pairs: Sequence[tuple[str, str | None]], tokenizer: Tokenizer, max_len: int
) -> tuple[list[Ints], list[Ints]]:
    """(ids, types) of texts and pairs. What is too long loses tokens at the end of its longer part
    (of the second where they are equal), one by one, as in the original."""
    cls, sep = [tokenizer.special.cls], [tokenizer.special.sep]
    firsts = _encoded(tokenizer, [first for first, _ in pairs])
    seconds = iter(_encoded(tokenizer, [second for _, second in pairs if second is not None]))
    rows, types = [], []
    for (_, second), a in zip(pairs, firsts, strict=True):
        if second is None:
            row = np.concatenate((cls, a[: max_len - 2], sep))
            kind = np.zeros(len(row), np.int32)
        else:
            b = next(seconds)
            keep_a, keep_b = shares(len(a), len(b), max_len - 3)
            row = np.concatenate((cls, a[:keep_a], sep, b[:keep_b], sep))
            kind = (np.arange(len(row)) >= keep_a + 2).astype(np.int32)
        rows.append(row.astype(np.int32))
        types.append(kind)
    return rows, types


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each part stay when the longer loses one at a time, the second at a tie."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    if second <= half:
        return room - second, second
    return room - half, half


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[Ints]:
    if not texts:
        return []
    flat, counts = tokenizer.encode_flat(texts)
    return np.split(flat, np.cumsum(counts)[:-1])


def _class(where: str, label: str | float | None, classes: Mapping[str, int]) -> int:
    if label is None:
        return UNKNOWN
    if label not in classes:
        shown = ", ".join(map(str, classes))
        raise UserError(f"example {where}: label {label!r} is none of the model's: {shown}")
    return classes[str(label)]


def _lengths(rows: Sequence[Ints]) -> Ints:
    return np.array([len(row) for row in rows], np.int32)
