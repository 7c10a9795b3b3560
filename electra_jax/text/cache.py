"""A cache of words in front of a tokenizer: most of a corpus is words seen before.

Text is cut where the tokenizer cuts too (see borders.py), so the ids of a text are those of its
pieces in a row, and only new pieces reach the library, all of a batch at once. There are two levels
for BERT's WordPiece: what stands between spaces ("word,"), and words and marks ("word" and ",").
"""

from collections.abc import Callable, Sequence

import numpy as np

Flat = tuple[np.ndarray, np.ndarray]  # ids int32 [sum of lengths], lengths int64 [texts]

# The cache starts again when it holds this many words or characters: about 100 MB of memory.
_MOST_WORDS, _MOST_CHARACTERS = 400_000, 16_000_000


class WordCache:
    """Equal to `library` where `library(text)` is that of the pieces `cut(text)` in a row.

    `joins(piece)` says that this may not hold for a text with that piece; `whole` encodes those.
    For one thread at a time.
    """

    def __init__(
        self,
        library: Callable[[Sequence[str]], Flat],
        cut: Callable[[str], list[str]],
        joins: Callable[[str], bool] | None = None,
        whole: Callable[[Sequence[str]], Flat] | None = None,
    ) -> None:
        self._library, self._cut, self._joins, self._whole = library, cut, joins, whole
        self._clear()

    def encode(self, texts: Sequence[str]) -> Flat:
        """The ids of all texts one after the other, and how many each has."""
        pieces: list[str] = []
        counts = [0]
        for text in texts:
            pieces += self._cut(text)
            counts.append(len(pieces))
        words_N = self._numbers(pieces)
        lengths_N = self._lengths[words_N]
        ends_N = np.zeros(len(words_N) + 1, np.int64)
        np.cumsum(lengths_N, out=ends_N[1:])
        # Word n's ids lie at starts[n].. of the table; shifted so that adding the output's own
        # index gives the place to read.
        shift_N = self._starts[words_N] - ends_N[:-1]
        ids = self._ids[np.repeat(shift_N, lengths_N) + np.arange(ends_N[-1])]
        lengths = np.diff(ends_N[np.array(counts)])
        joined = np.flatnonzero(self._joined[words_N])
        if len(joined):
            numbers = np.unique(np.searchsorted(np.array(counts), joined, side="right") - 1)
            ids, lengths = self._with_whole(texts, numbers.tolist(), ids, lengths)
        if len(self._words) > _MOST_WORDS or self._characters > _MOST_CHARACTERS:
            self._clear()
        return ids, lengths

    def _clear(self) -> None:
        self._words = _Numbers()
        self._characters = 0
        self._ids = np.empty(0, np.int32)  # those of all words in a row
        self._starts, self._lengths = np.empty(0, np.int64), np.empty(0, np.int64)
        self._joined = np.empty(0, bool)

    def _with_whole(
        self, texts: Sequence[str], numbers: Sequence[int], ids: np.ndarray, lengths: np.ndarray
    ) -> Flat:
        """The same with the texts of these numbers encoded whole."""
        assert self._whole is not None
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        found, counts = self._whole([texts[number] for number in numbers])
        lengths[numbers] = counts
        for number, part in zip(numbers, np.split(found, np.cumsum(counts)[:-1]), strict=True):
            parts[number] = part
        return np.concatenate(parts), lengths

    def _numbers(self, pieces: list[str]) -> np.ndarray:
        """The number of every piece, int64; new ones are encoded and added."""
        numbers = np.fromiter(map(self._words.__getitem__, pieces), np.int64, len(pieces))
        new, self._words.new = self._words.new, []
        if new:
            try:
                self._add(new)
            except BaseException:
                self._clear()  # the new words have numbers, but nothing is behind them
                raise
        return numbers

    def _add(self, new: list[str]) -> None:
        ids, lengths = self._library(new)
        self._characters += sum(map(len, new))
        joined = [self._joins is not None and self._joins(piece) for piece in new]
        self._joined = np.concatenate((self._joined, np.array(joined, bool)))
        ends = np.cumsum(lengths) + len(self._ids)
        self._starts = np.concatenate((self._starts, ends - lengths))
        self._lengths = np.concatenate((self._lengths, lengths))
        self._ids = np.concatenate((self._ids, ids))


class _Numbers(dict[str, int]):
    """Words numbered in the order they are first asked for; `new` lists those since last emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        self.new.append(word)
        return number
