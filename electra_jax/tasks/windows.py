"""Questions about long contexts: windows that overlap, and where their tokens stand in the text."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from electra_jax.spec import UserError
from electra_jax.tasks.examples import QaExample
from electra_jax.text.tokenizer import Tokenizer

# The original's (google-research/electra, configure_finetuning.py).
MAX_QUESTION = 64
DOC_STRIDE = 128


@dataclasses.dataclass(frozen=True)
class Windows:
    """What decoding needs of each window (a row [CLS] question [SEP] context tokens [SEP]).

    `example` int32 [n]. `first` int32 [n]: the row's first token of the context. `characters`: int32
    [c, 2] a window, where its c context tokens stand in the context. `best`: bool [c] a window,
    whether this is the window in which the token has the most context on its poorer side; only
    there may an answer begin (BERT's max-context rule).
    """

    example: np.ndarray
    first: np.ndarray
    characters: list[np.ndarray]
    best: list[np.ndarray]


class Built(NamedTuple):
    """Rows, their targets, and their windows."""

    ids: list[np.ndarray]
    start: np.ndarray
    end: np.ndarray
    impossible: np.ndarray
    windows: Windows


def build(
    examples: Sequence[QaExample],
    tokenizer: Tokenizer,
    max_len: int,
    doc_stride: int = DOC_STRIDE,
    max_question: int = MAX_QUESTION,
    training: bool = False,
) -> Built:
    """The windows of every example, in order.

    A question is cut to `max_question` tokens. A window that does not hold the whole answer has
    start = end = 0 ([CLS]), as in the original; `impossible` stays what the question is. With
    `training`, questions whose answer was not found where the file says give no window.
    """
    room = max_len - 3
    if doc_stride < 1:
        raise UserError(f"doc_stride is {doc_stride}; expected 1 or more")
    if room - max_question < 8:
        max_question = max(room - max(8, room // 2), 1)  # short rows: half of it for the question
    contexts = {example.context: number for number, example in enumerate(examples)}
    encoded = dict(zip(contexts, tokenizer.encode_offsets(list(contexts)), strict=True))
    questions = tokenizer.encode_batch([example.question for example in examples])
    cls, sep = tokenizer.special.cls, tokenizer.special.sep
    rows, starts, ends, impossible = [], [], [], []
    number_of, firsts, characters, best = [], [], [], []
    progress = tqdm(examples, "windows", unit=" questions", delay=2, disable=None)
    for number, (example, asked) in enumerate(zip(progress, questions, strict=True)):
        ids, places = encoded[example.context]
        target = _target(example, places)
        if target is None and training:
            continue
        head = np.array([cls, *asked[:max_question], sep], np.int32)
        spans = cut(len(ids), max_len - len(head) - 1, doc_stride)
        owner = _owners(spans, len(ids))
        for window, (begin, stop) in enumerate(spans):
            rows.append(np.concatenate((head, ids[begin:stop], [sep])).astype(np.int32))
            number_of.append(number)
            firsts.append(len(head))
            characters.append(places[begin:stop])
            best.append(owner[begin:stop] == window)
            impossible.append(int(example.impossible))
            start = end = -1
            if target is not None:
                start, end = 0, 0
                if target != (-1, -1) and begin <= target[0] and target[1] < stop:
                    start, end = (token - begin + len(head) for token in target)
            starts.append(start)
            ends.append(end)
    return Built(
        rows,
        np.array(starts, np.int32),
        np.array(ends, np.int32),
        np.array(impossible, np.int32),
        Windows(np.array(number_of, np.int32), np.array(firsts, np.int32), characters, best),
    )


def cut(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[start, stop) of the windows over `length` tokens; one empty window for none."""
    spans = []
    begin = 0
    while True:
        stop = min(begin + room, length)
        spans.append((begin, stop))
        if stop == length:
            return spans
        begin += min(stop - begin, stride)


def _owners(spans: Sequence[tuple[int, int]], length: int) -> np.ndarray:
    """int [length]: the window that gives each token the most context on its poorer side.

    Of equals the first. A hundredth of the window's length counts too (BERT's tie breaker).
    """
    score = np.full(length, -1.0)
    owner = np.zeros(length, np.int32)
    for window, (begin, stop) in enumerate(spans):
        at = np.arange(begin, stop)
        here = np.minimum(at - begin, stop - 1 - at) + 0.01 * (stop - begin)
        better = here > score[begin:stop]
        score[begin:stop][better] = here[better]
        owner[begin:stop][better] = window
    return owner


def _target(example: QaExample, places: np.ndarray) -> tuple[int, int] | None:
    """(first, last) token of the answer to learn; (-1, -1) for none to find, None if unknown."""
    if example.impossible:
        return -1, -1
    if not example.answers or example.answers[0][1] < 0:
        return None
    text, start = example.answers[0]
    inside = np.flatnonzero((places[:, 1] > start) & (places[:, 0] < start + len(text)))
    if len(inside) == 0:  # nothing of it is left by the vocabulary's cleaning
        return None
    return int(inside[0]), int(inside[-1])
