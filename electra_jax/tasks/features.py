"""Examples as token ids: rows of different lengths, with the targets that their task has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.spec import UserError
from electra_jax.tasks import windows
from electra_jax.tasks.examples import ChoiceExample, QaExample, TagExample, TextExample
from electra_jax.text.tokenizer import Tokenizer

IGNORE = -100  # the target of a position that has none
UNKNOWN = -1  # the class, position or choice of an example without a label

Ints = np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """How much of a text goes into a row."""

    max_len: int  # tokens of a row, special ones among them
    doc_stride: int = windows.DOC_STRIDE  # tokens from one window of a long context to the next
    max_question: int = windows.MAX_QUESTION  # tokens of a question

    def __post_init__(self) -> None:
        if self.max_len < 8:
            raise UserError(f"max_len {self.max_len} leaves no room for a text; expected 8 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """The rows of a split. Everything is ragged: a batch is padded to its own longest row.

    `ids` and `types`: int32 [l] a row, special tokens included. A row is [CLS] A [SEP], type 0, or
    [CLS] A [SEP] B [SEP], type 1 from B on.

    `group` rows in a row make one unit of a batch: the choices of an example, else 1.
    `lengths` int32 [units]: the longest row of each. `example` int32 [units]: which example it
    comes from; several units may come from one (long questions, long tagged sentences), and they
    are neighbours.

    `targets`: what is right, by name, with one entry a unit; for those in `per_token` one int32 [l] a row.
    `inputs`: what the head reads beside the tokens, by name, int32 [units, ...].

    `words` (of tagging): int32 [w] a row, the positions of the first tokens of its words;
    `first_word` int32 [units]: which word of the example the first of them is.
    `windows` (of questions): where tokens stand in the context, for `answers.decode`.
    """

    ids: list[Ints]
    types: list[Ints]
    lengths: Ints
    example: Ints
    targets: Mapping[str, Any]
    inputs: Mapping[str, Ints] = dataclasses.field(default_factory=dict)
    per_token: tuple[str, ...] = ()
    group: int = 1
    words: list[Ints] | None = None
    first_word: Ints | None = None
    windows: "windows.Windows | None" = None

    def __len__(self) -> int:
        return len(self.lengths)


def of_texts(
    examples: Sequence[TextExample], tokenizer: Tokenizer, room: Room, targets: Mapping[str, Ints]
) -> Features:
    """A row a text or pair."""
    rows, types = _rows([(e.text, e.pair) for e in examples], tokenizer, room.max_len)
    return Features(
        ids=rows,
        types=types,
        lengths=_lengths(rows),
        example=np.arange(len(rows), dtype=np.int32),
        targets=targets,
    )


def of_choices(examples: Sequence[ChoiceExample], tokenizer: Tokenizer, room: Room) -> Features:
    """A group of rows an example: its context with each choice; "label" is the number of the right one, or UNKNOWN."""
    group = len(examples[0].choices) if examples else 1
    pairs: list[tuple[str, str | None]] = [(e.context, c) for e in examples for c in e.choices]
    if len(pairs) != group * len(examples):
        raise UserError("the examples have different numbers of choices; expected one number")
    rows, types = _rows(pairs, tokenizer, room.max_len)
    label = np.array([UNKNOWN if e.label is None else e.label for e in examples], np.int32)
    lengths = _lengths(rows).reshape(-1, group).max(1, initial=0)
    return Features(
        ids=rows,
        types=types,
        lengths=lengths,
        example=np.arange(len(examples), dtype=np.int32),
        targets={"label": label},
        group=group,
    )


def of_words(
    examples: Sequence[TagExample], tokenizer: Tokenizer, room: Room, labels: Sequence[str]
) -> Features:
    """Rows of whole words; "label" is the class at the first token of a word, else IGNORE.

    A sentence that does not fit goes on in the next row.

    A word that gives no token (white space, characters that cleaning removes) becomes [UNK], so
    that every word has its place; one of more tokens than a row has is cut.
    """
    max_len = room.max_len
    numbers = {label: number for number, label in enumerate(labels)}
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
            tags = [class_number(example.id, tag, numbers) for tag in example.tags]
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
        ids=rows,
        types=types,
        lengths=_lengths(rows),
        example=np.array(example_of, np.int32),
        targets={"label": targets},
        per_token=("label",),
        words=places,
        first_word=np.array(first_word, np.int32),
    )


def of_questions(
    examples: Sequence[QaExample], tokenizer: Tokenizer, room: Room, training: bool
) -> Features:
    """A row a window of a context.

    "start" and "end" are tokens of the row, both 0 where this window does not hold the answer or there is none,
    UNKNOWN where the file has none; "impossible" says that there is none. `training`: questions whose answer is not
    where the file says give no rows.
    """
    made = windows.build(
        examples, tokenizer, room.max_len, room.doc_stride, room.max_question, training
    )
    types = [
        (np.arange(len(row)) >= first).astype(np.int32)
        for row, first in zip(made.ids, made.windows.first, strict=True)
    ]
    targets = {"start": made.start, "end": made.end, "impossible": made.impossible}
    return Features(
        ids=made.ids,
        types=types,
        lengths=_lengths(made.ids),
        example=made.windows.example,
        targets=targets,
        windows=made.windows,
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


def class_numbers(
    examples: Sequence[Any], labels: Sequence[str], given: Sequence[str | float | None]
) -> list[int]:
    """The number of every class given; UNKNOWN for None. UserError for one that is none of `labels`."""
    numbers = {label: number for number, label in enumerate(labels)}
    return [
        class_number(example.id, label, numbers)
        for example, label in zip(examples, given, strict=True)
    ]


def class_number(where: str, label: str | float | None, numbers: Mapping[str, int]) -> int:
    """The number of a class; UNKNOWN for None. UserError for one that has none."""
    if label is None:
        return UNKNOWN
    if label not in numbers:
        shown = ", ".join(map(str, numbers))
        raise UserError(f"example {where}: label {label!r} is none of the model's: {shown}")
    return numbers[str(label)]


def _lengths(rows: Sequence[Ints]) -> Ints:
    return np.array([len(row) for row in rows], np.int32)
