"""Counts of tokens and of pairs of neighbours, and the two models they make: unigram and bigram."""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from tqdm import tqdm

from electra_jax.spec import UserError

Rows = dict[str, np.ndarray]

TUNE_EVERY = 20  # one row in twenty tunes the constants; its counts are added afterwards
READ_ROWS = 4096
MERGE_PAIRS = 4_000_000  # pairs that wait to be merged: some 300 MB while they are sorted
SMOOTHING = (0.01, 0.1, 1.0)  # candidates for k


class TooFew(UserError):
    """Nothing to count, or nothing to tune on."""


class Source(Protocol):
    """Rows by number, as `electra_jax.data.source` serves them."""

    def __len__(self) -> int: ...
    def rows(self, numbers: np.ndarray) -> Rows: ...


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Distinct (left neighbour, token) pairs in ascending order, with how often each occurs."""

    left: np.ndarray
    token: np.ndarray
    count: np.ndarray

    @property
    def total(self) -> int:
        return int(self.count.sum())


def candidates(rows: Rows, special: tuple[int, ...]) -> np.ndarray:
    """bool [n, L]: the positions that masking may choose, which are neither padding nor special.

    `special` holds the ids of [PAD], [CLS], [SEP] and [MASK]; [UNK] may be chosen.
    """
    return (rows["docs"] > 0) & ~np.isin(rows["ids"], special)


def left_neighbours(ids: np.ndarray, docs: np.ndarray, pad: int) -> np.ndarray:
    """int [n, L]: the token before each position, `pad` where a row or a document begins."""
    left = np.full_like(ids, pad)
    left[:, 1:] = np.where(docs[:, 1:] == docs[:, :-1], ids[:, :-1], pad)
    return left


class Ngrams:
    """A unigram and an interpolated bigram model of the tokens that masking may choose.

    unigram: add-k smoothed, P(w) = (c(w) + k) / (n + k |W|), where W is the vocabulary without
    [PAD], [CLS], [SEP] and [MASK].
    bigram: P(w | l) = r c(l, w) / c(l) + (1 - r) P(w), where l is the true token to the left
    ([CLS] and [SEP] included) and r depends on the size class floor(log2 c(l)) of l's count.
    k (from `SMOOTHING`) and r (by expectation maximisation) are those that make the rows set aside
    from the training split most probable.
    """

    def __init__(self, fit: Pairs, tune: Pairs, vocab_size: int, special: tuple[int, ...]):
        if not fit.total:
            raise TooFew("the baselines need at least two training rows with text in them")
        self.vocab_size, self.special = vocab_size, special
        self._allowed_V = np.ones(vocab_size, bool)
        self._allowed_V[list(special)] = False
        self._load(fit)
        self.k = min(SMOOTHING, key=lambda k: self._unigram_loss(tune, k))
        self._smooth()
        self.weight = self._tune(tune)
        self._load(_merge([fit, tune]))
        self._smooth()

    def _load(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._keys = pairs.left.astype(np.int64) * self.vocab_size + pairs.token
        self._unigram_V = np.bincount(pairs.token, pairs.count, self.vocab_size)
        self._context_V = np.bincount(pairs.left, pairs.count, self.vocab_size)

    def _smooth(self, k: float | None = None) -> None:
        k = self.k if k is None else k
        smoothed_V = np.where(self._allowed_V, self._unigram_V + k, 0.0)
        self.unigram_V: np.ndarray = smoothed_V / smoothed_V.sum()

    def _unigram_loss(self, pairs: Pairs, k: float) -> float:
        self._smooth(k)
        return float(-(pairs.count * np.log(self.unigram_V[pairs.token])).sum())

    def _size_class(self, left: np.ndarray) -> np.ndarray:
        return np.log2(np.maximum(self._context_V[left], 1)).astype(np.int64)

    def _conditional(self, left: np.ndarray, token: np.ndarray) -> np.ndarray:
        """c(l, w) / c(l), 0 where l was never seen."""
        wanted = left.astype(np.int64) * self.vocab_size + token
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        count = np.where(self._keys[at] == wanted, self._pairs.count[at], 0)
        return count / np.maximum(self._context_V[left], 1)

    def _tune(self, pairs: Pairs) -> np.ndarray:
        classes = self._size_class(pairs.left)
        bigram, unigram = (
            self._conditional(pairs.left, pairs.token),
            self.unigram_V[pairs.token],
        )
        total = np.bincount(classes, pairs.count, 64)
        weight = np.full(64, 0.5)
        for _ in range(30):
            r = weight[classes]
            share = r * bigram / (r * bigram + (1 - r) * unigram)
            # One more observation each way: a weight of 1 would hold an unseen pair impossible.
            weight = (np.bincount(classes, pairs.count * share, 64) + 1) / (total + 2)
        return weight

    def log_unigram(self, token: np.ndarray) -> np.ndarray:
        """Natural log-probability of each token; minus infinity for those masking never chooses."""
        with np.errstate(divide="ignore"):
            return np.log(self.unigram_V)[token]

    def log_bigram(self, left: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Natural log-probability of each token after the token to its left."""
        r = self.weight[self._size_class(left)]
        mixed = r * self._conditional(left, token) + (1 - r) * self.unigram_V[token]
        with np.errstate(divide="ignore"):
            return np.log(mixed)

    def best_after(self) -> np.ndarray:
        """int [V]: the token that the bigram model holds most probable after each token."""
        pairs, top = self._pairs, int(self.unigram_V.argmax())
        best_V = np.full(self.vocab_size, top)
        contexts = np.flatnonzero(self._context_V)
        log_p = self.log_bigram(pairs.left, pairs.token)
        order = np.lexsort((log_p, pairs.left))
        last = order[np.searchsorted(pairs.left[order], contexts, side="right") - 1]
        unseen = self.log_bigram(contexts, np.full_like(contexts, top))
        best_V[contexts] = np.where(log_p[last] >= unseen, pairs.token[last], top)
        return best_V

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Tokens drawn from the unigram model."""
        cumulative_V = np.cumsum(self.unigram_V)
        return np.searchsorted(cumulative_V, rng.random(shape) * cumulative_V[-1], side="right")


def fit(source: Source, vocab_size: int, special: tuple[int, ...], limit: int | None) -> Ngrams:
    """Counts the rows of `source`, or `limit` of them evenly spread over it."""
    numbers = np.arange(len(source))
    if limit is not None and limit < len(numbers):
        numbers = np.linspace(0, len(numbers) - 1, limit).astype(np.int64)
    tune = numbers[::TUNE_EVERY]
    rest = np.delete(numbers, np.s_[::TUNE_EVERY])
    counted = [count(source, part, vocab_size, special) for part in (rest, tune)]
    return Ngrams(counted[0], counted[1], vocab_size, special)


def count(source: Source, numbers: np.ndarray, vocab_size: int, special: tuple[int, ...]) -> Pairs:
    """The pairs of the rows named by `numbers`."""
    parts: list[Pairs] = []
    for rows in read(source, numbers, "counting pairs"):
        ids, chosen = rows["ids"], candidates(rows, special)
        left = left_neighbours(ids, rows["docs"], special[0])[chosen].astype(np.int64)
        keys, n = np.unique(left * vocab_size + ids[chosen], return_counts=True)
        parts.append(Pairs(keys // vocab_size, keys % vocab_size, n))
        if sum(len(part.count) for part in parts[1:]) > MERGE_PAIRS:
            parts = [_merge(parts)]
    return _merge(parts)


def _merge(parts: list[Pairs]) -> Pairs:
    empty = np.zeros(0, np.int64)
    parts = parts or [Pairs(empty, empty, empty)]
    base = 1 + max((int(part.token.max()) for part in parts if len(part.token)), default=0)
    keys = np.concatenate([part.left * base + part.token for part in parts])
    keys, inverse = np.unique(keys, return_inverse=True)
    n = np.bincount(inverse, np.concatenate([part.count for part in parts]), len(keys))
    return Pairs(keys // base, keys % base, n.astype(np.int64))


def read(source: Source, numbers: np.ndarray, what: str) -> Iterator[Rows]:
    """The rows of these numbers in blocks, with a progress bar that says `what` for."""
    for start in tqdm(range(0, len(numbers), READ_ROWS), desc=what, unit="block", disable=None):
        yield source.rows(numbers[start : start + READ_ROWS])
