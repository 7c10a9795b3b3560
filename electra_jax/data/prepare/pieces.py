"""Pieces of text, each some blocks of documents: written to files by who reads, for whoever works on them."""

import dataclasses
import marshal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from electra_jax import files
from electra_jax.data.prepare import deal, work
from electra_jax.data.prepare.corpus import Corpus

Piece = list[work.Block]


class Reader:
    """Reads runs of files of a corpus into pieces in `folder`."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self._corpus, self._folder = corpus, folder
        self._open: dict[int, Iterator[int]] = {}
        self._stored = 0

    def read(
        self, run: int, of: range, most: int, dropped: dict[int, bytes] | None = None
    ) -> deal.Read:
        """Writes the next pieces, at most so many, of a run of files. With the first comes `dropped_of` for the run."""
        if run not in self._open:
            self._open[run] = self._pieces(run, of, dropped or {})
        before, made, ended = self._stored, 0, False
        while made < most and not ended:
            ended = next(self._open[run], None) is None
            made += not ended
        if ended:
            del self._open[run]
        return deal.Read(made, self._stored - before, ended)

    def take(self, run: int, piece: int) -> Piece:
        """A piece that somebody has read; its file is gone afterwards."""
        path = self._path(run, piece)
        blocks = marshal.loads(path.read_bytes())
        path.unlink()
        return [work.Block(*block) for block in blocks]

    def _pieces(self, run: int, of: range, dropped: dict[int, bytes]) -> Iterator[int]:
        """Writes pieces of a block of text or more; how many there are, after each."""
        left_out = {
            (file, number)
            for file, numbers in dropped.items()
            for number in np.frombuffer(numbers, np.int64).tolist()
        }
        corpus = dataclasses.replace(self._corpus, dropped=frozenset(left_out))
        piece: Piece = []
        number, size = 0, 0
        for file in of:
            for block in corpus.blocks(file, self._count):
                piece.append(block)
                size += sum(map(len, (line for document in block.documents for line in document)))
                if 2 * size >= corpus.block_size:
                    self._write(run, number, piece)
                    piece, number, size = [], number + 1, 0
                    yield number
        if piece:
            self._write(run, number, piece)
            yield number + 1

    def _count(self, stored: int) -> None:
        self._stored += stored

    def _write(self, run: int, number: int, piece: Piece) -> None:
        path = self._path(run, number)
        with files.disk_errors(path):
            path.write_bytes(marshal.dumps([tuple(block) for block in piece]))

    def _path(self, run: int, piece: int) -> Path:
        return self._folder / f"text-{run}-{piece}"


def dropped_of(corpus: Corpus) -> dict[int, bytes]:
    """The numbers of the dropped documents of each file that has some, as int64."""
    found: dict[int, list[int]] = {}
    for file, number in corpus.dropped:
        found.setdefault(file, []).append(number)
    return {file: np.array(sorted(numbers), np.int64).tobytes() for file, numbers in found.items()}
