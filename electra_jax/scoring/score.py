"""The score of every token of many texts, in batches of rows of a few lengths."""

import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from electra_jax.finetune import order
from electra_jax.learn import mesh as meshes
from electra_jax.learn import program as programs
from electra_jax.model.tokens import Tokens
from electra_jax.scoring import texts
from electra_jax.scoring.model import Scorer
from electra_jax.scoring.network import Network
from electra_jax.scoring.texts import Encoded, Window

BUCKETS = 6  # lengths of rows, each compiled once
TOKENS = 8192  # of a batch
TOGETHER = 2048  # texts whose scores are given out together
AHEAD = 2  # batches that are dispatched before the oldest is read


@dataclass(frozen=True)
class Score:
    """A text's tokens and their scores."""

    text: str
    tokens: list[str]
    values_N: np.ndarray  # float64

    @property
    def total(self) -> float:
        """The text's score: the sum over its tokens."""
        return float(self.values_N.sum())


class _Row(NamedTuple):
    """What one row of a batch asks for: a window, all of its tokens (-1) or the one at this place of the text."""

    window: Window
    at: int


def score(
    scorer: Scorer, encoded: Sequence[Encoded], word_l2r: bool = False, progress: bool = True
) -> Iterator[Score]:
    """The scores of these texts, in their order.

    Each token of a masked LM is masked in turn, a row each; `word_l2r` masks the tokens of the same word behind it too
    (PLL-word-l2r of Kauf and Ivanova, arXiv:2305.10588), so that a rare word is not given away by its other half.
    """
    windows = texts.windows((len(one.ids_N) for one in encoded), scorer.room)
    of_text: dict[int, list[Window]] = collections.defaultdict(list)
    for window in windows:
        of_text[window.text].append(window)
    compiled = _Compiled(scorer, windows, word_l2r)
    total = sum(compiled.rows_of(window) for window in windows)
    with tqdm(
        total=total, desc="scoring", unit=" rows", delay=2, disable=None if progress else True
    ) as bar:
        for begin in range(0, len(encoded), TOGETHER):
            numbers = range(begin, min(len(encoded), begin + TOGETHER))
            values = {n: np.zeros(len(encoded[n].ids_N)) for n in numbers}
            rows = [row for n in numbers for w in of_text[n] for row in compiled.rows(w)]
            for row, scores_L in compiled.run(encoded, rows):
                window = row.window
                if row.at < 0:
                    here = slice(window.first - window.start + 1, window.last - window.start + 1)
                    values[window.text][window.first : window.last] = scores_L[here]
                else:
                    values[window.text][row.at] = scores_L[0]
                bar.update()
            for n in numbers:
                yield Score(
                    encoded[n].text, scorer.tokenizer.tokens(encoded[n].ids_N.tolist()), values[n]
                )


class _Compiled:
    """The network on this process's devices, compiled once for each length of rows."""

    def __init__(self, scorer: Scorer, windows: Sequence[Window], word_l2r: bool) -> None:
        self._spec, self._special = scorer.spec, scorer.tokenizer.special
        self._word_l2r = word_l2r
        programs.use_compilation_cache()
        mesh = meshes.build(meshes.MeshSpec(-1, 1))
        self._by_rows = programs.rows(mesh)
        whole = NamedSharding(mesh, P())
        self._params = programs.place(scorer.params, jax.tree.map(lambda _: whole, scorer.params))
        network = Network(scorer.spec)

        def run(params: Any, tokens: Tokens, at_BxK: jax.Array, target_BxK: jax.Array) -> Any:
            if self._spec.one_pass:
                return network.apply({"params": params}, tokens, method=Network.every)
            return network.apply(
                {"params": params}, tokens, at_BxK, target_BxK, method=Network.masked
            )

        self._run = jax.jit(meshes.on_mesh(run, mesh), out_shardings=whole)
        lengths_W = np.array([w.stop - w.start + 2 for w in windows])
        self._buckets = order.bucket_lengths(
            lengths_W, BUCKETS, scorer.room + 2, order.PREDICTION_PRICE
        )
        self._batch = self._batches(lengths_W, windows, mesh.size)

    def _batches(
        self, lengths_W: np.ndarray, windows: Sequence[Window], devices: int
    ) -> dict[int, int]:
        """Rows of a batch by their length: as many as make TOKENS, or the power of two that holds them all."""
        rows: collections.Counter[int] = collections.Counter()
        for length, window in zip(lengths_W.tolist(), windows, strict=True):
            rows[self._length(length)] += self.rows_of(window)
        found = {}
        for length, count in rows.items():
            wanted = min(max(1, TOKENS // length), 1 << (count - 1).bit_length())
            found[length] = -(-wanted // devices) * devices
        return found

    def _length(self, tokens: int) -> int:
        return next(bucket for bucket in self._buckets if bucket >= tokens)

    def rows_of(self, window: Window) -> int:
        """How many rows a window takes."""
        return 1 if self._spec.one_pass else window.last - window.first

    def rows(self, window: Window) -> Iterator[_Row]:
        """The rows of a window."""
        if self._spec.one_pass:
            yield _Row(window, -1)
        else:
            yield from (_Row(window, at) for at in range(window.first, window.last))

    def run(
        self, encoded: Sequence[Encoded], rows: Sequence[_Row]
    ) -> Iterator[tuple[_Row, np.ndarray]]:
        """Every row and its scores [L], or [1] for the one token that it asks for."""
        by_length: dict[int, list[_Row]] = collections.defaultdict(list)
        for row in rows:
            by_length[self._length(row.window.stop - row.window.start + 2)].append(row)
        waiting: collections.deque[tuple[list[_Row], jax.Array]] = collections.deque()
        for length, same in sorted(by_length.items()):
            size = self._batch[length]
            for begin in range(0, len(same), size):
                part = same[begin : begin + size]
                waiting.append((part, self._dispatch(encoded, part, length, size)))
                if len(waiting) > AHEAD:
                    yield from _read(*waiting.popleft())
        while waiting:
            yield from _read(*waiting.popleft())

    def _dispatch(
        self, encoded: Sequence[Encoded], rows: Sequence[_Row], length: int, size: int
    ) -> jax.Array:
        ids_BxL = np.full((size, length), self._special.pad, np.int32)
        docs_BxL = np.zeros((size, length), np.int32)
        at_Bx1, target_Bx1 = np.zeros((size, 1), np.int32), np.zeros((size, 1), np.int32)
        for i, row in enumerate(rows):
            text, window = encoded[row.window.text], row.window
            inside = text.ids_N[window.start : window.stop].copy()
            if row.at >= 0:
                at = row.at - window.start
                at_Bx1[i], target_Bx1[i] = at + 1, inside[at]
                inside[at : self._hidden_to(text, row.at) - window.start] = self._special.mask
            ids_BxL[i, : len(inside) + 2] = [self._special.cls, *inside.tolist(), self._special.sep]
            docs_BxL[i, : len(inside) + 2] = 1
        places_BxL = np.broadcast_to(np.arange(length, dtype=np.int32), ids_BxL.shape)
        tokens = Tokens(ids_BxL, np.zeros_like(ids_BxL), docs_BxL, places_BxL)  # type: ignore[arg-type]
        put = [
            programs.place_array(np.ascontiguousarray(x), self._by_rows)
            for x in (*tokens, at_Bx1, target_Bx1)
        ]
        found: jax.Array = self._run(self._params, Tokens(*put[:4]), *put[4:])
        return found

    def _hidden_to(self, text: Encoded, at: int) -> int:
        """Behind the last token that is hidden with the one at this place."""
        stop = at + 1
        while self._word_l2r and stop < len(text.ids_N) and not text.starts_N[stop]:
            stop += 1
        return stop


def _read(rows: Sequence[_Row], scores: jax.Array) -> Iterator[tuple[_Row, np.ndarray]]:
    yield from zip(rows, np.asarray(jax.device_get(scores)), strict=False)
