"""Texts from flags and files, as tokens, and cut into windows where they are longer than the model reads."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from electra_jax.data.words import Words
from electra_jax.spec import UserError
from electra_jax.text.sources import streams
from electra_jax.text.tokenizer import Tokenizer

TOGETHER = 1_000  # texts that are encoded at once
STDIN = "standard input"


class Text(NamedTuple):
    """A text and where it stands, for errors."""

    where: str
    text: str


@dataclass(frozen=True)
class Encoded:
    """The tokens of a text without special ones, and which of them begin a word."""

    text: str
    ids_N: np.ndarray  # int32
    starts_N: np.ndarray  # bool


class Window(NamedTuple):
    """A stretch of tokens that is read at once, and those of it that are scored there, all by place in the text."""

    text: int  # number of the text
    start: int
    stop: int
    first: int
    last: int  # behind the last one that is scored


def given(texts: Sequence[str]) -> list[Text]:
    """The texts of the command line."""
    return [Text(f"text {number}", text) for number, text in enumerate(texts, 1)]


def of_lines(path: str) -> list[Text]:
    """The lines of a file, compressed or not; "-" is standard input. UserError for what is not UTF-8 text."""
    if path == "-":
        name, blocks = (
            STDIN,
            streams.decoded(STDIN, iter(lambda: sys.stdin.buffer.read(1 << 20), b"")),
        )
    else:
        name, blocks = path, streams.lines(path)
    lines = (line for block in blocks for line in block)
    return [Text(f"{name}:{number}", line.rstrip("\r")) for number, line in enumerate(lines, 1)]


def records(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where it stands, and the object, of every line of a file of JSON lines, compressed or not."""
    for number, line in enumerate((x for block in streams.lines(path) for x in block), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is no JSON: {error}; expected an object a line") from None
        if not isinstance(found, dict):
            raise UserError(f"{where} is {type(found).__name__}; expected an object a line")
        yield where, found


def encode(texts: Sequence[Text], tokenizer: Tokenizer, room: int, windows: bool) -> list[Encoded]:
    """The tokens of every text. UserError for one without any, and for one of more than `room` without `windows`."""
    words, found = Words(tokenizer), []
    for begin in range(0, len(texts), TOGETHER):
        part = texts[begin : begin + TOGETHER]
        for text, ids in zip(part, tokenizer.encode_batch([x.text for x in part]), strict=True):
            if not ids:
                what = "holds no token" if text.text.strip() else "is empty"
                raise UserError(f"{text.where} {what}: there is nothing to score; remove it")
            if len(ids) > room and not windows:
                raise UserError(
                    f"{text.where} has {len(ids):,} tokens and the model reads {room:,} at once; shorten it, or score "
                    "long texts in windows that overlap (--windows)"
                )
            ids_N = np.array(ids, np.int32)
            starts_N = words.starts([text.text], np.array([len(ids)]), ids_N).copy()
            starts_N[0] = True
            found.append(Encoded(text.text, ids_N, starts_N))
    return found


def windows(lengths: Iterable[int], room: int) -> list[Window]:
    """The windows of texts of these lengths: one, or windows of `room` tokens of which neighbours share half.

    Each token is scored in the window in which it has the more context on its shorter side.
    """
    found = []
    for number, length in enumerate(lengths):
        if length <= room:
            found.append(Window(number, 0, length, 0, length))
            continue
        step = max(1, room // 2)
        starts = [*range(0, length - room, step), length - room]
        cuts = [(a + b + room) // 2 for a, b in itertools.pairwise(starts)]
        bounds = [0, *cuts, length]
        for start, (first, last) in zip(starts, itertools.pairwise(bounds), strict=True):
            found.append(Window(number, start, start + room, first, last))
    return found
