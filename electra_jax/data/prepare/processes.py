"""`prepare` by processes of this machine: members of a team read, make rows, write shards and hash what they wrote.

Rows stand in the order of the text, so a shard is a stretch of that order. Who makes rows puts them in a file;
as soon as all rows before them are counted, this process knows their places, and tells the member that writes
their shard. No row and no text passes through this process.
"""

import collections
import dataclasses
import functools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from electra_jax import files
from electra_jax.data import record
from electra_jax.data.prepare import deal, pieces, shards, work
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.data.prepare.team import Team
from electra_jax.text.sources import documents

# Bytes of rows that may wait in files for their turn, if the disk has room: twice a shard, at least so many.
_WAITING = 2**31

# Records of a file that are held in memory at a time.
_AT_ONCE = 2**10


class Rows(NamedTuple):
    """So many rows of a split from `offset` (in bytes) of a piece's file."""

    piece: tuple[int, int]
    offset: int
    rows: int


class Builder(pieces.Reader):
    """A member: makes the rows of pieces, and writes them to shards of its own."""

    def __init__(self, corpus: Corpus, job: work.Job, folder: Path, spool: Path) -> None:
        super().__init__(corpus, spool)
        self._maker = work.Maker(job)
        self._target, self._row_bytes = folder, _row_bytes(job)
        self._counts = {split: collections.Counter[str]() for split in work.SPLITS}
        self._shards: dict[str, shards.Shard] = {}

    def make(self, run: int, piece: int) -> deal.Done:
        """Makes the rows of a piece, those for training first; how many each split has."""
        made = [self._maker(block) for block in self.take(run, piece)]
        path = self._rows_path(run, piece)
        rows = []
        with files.disk_errors(path), open(path, "wb") as file:
            for split in work.SPLITS:
                for one in made:
                    self._counts[split].update(one.counts[split])
                    file.write(one.records[split].tobytes())
                rows.append(sum(len(one.records[split]) for one in made))
        return deal.Done(tuple(rows), sum(rows) * self._row_bytes)

    def write(self, shard: str, parts: list[Rows], last: bool) -> dict[str, Any] | None:
        """Appends rows to a shard; after the last ones, what is said of it."""
        if shard not in self._shards:
            self._shards[shard] = shards.Shard(self._target / shard)
        for part in parts:
            with open(self._rows_path(*part.piece), "rb") as file:
                file.seek(part.offset)
                for at in range(0, part.rows, _AT_ONCE):
                    rows = min(_AT_ONCE, part.rows - at)
                    flat = np.fromfile(file, np.uint8, rows * self._row_bytes)
                    self._shards[shard].write(flat.reshape(rows, self._row_bytes))
        return self._shards.pop(shard).close() if last else None

    def describe(self, of: range) -> list[dict[str, Any]]:
        """What is said of these inputs."""
        return [self._corpus.describe_one(file) for file in of]

    def counts(self) -> dict[str, "collections.Counter[str]"]:
        """What this member has counted."""
        return self._counts

    def _rows_path(self, run: int, piece: int) -> Path:
        return rows_path(self._folder, (run, piece))


def rows_path(spool: Path, piece: tuple[int, int]) -> Path:
    """The file of a piece's rows."""
    return spool / f"rows-{piece[0]}-{piece[1]}"


class _Split:
    """Where the rows of one split go: shard after shard, each with a member of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number, self.filled = 0, 0
        self.member: int | None = None

    @property
    def shard(self) -> str:
        return shards.unnamed(self.name, self.number)


class _Placing:
    """Gives rows their places in shards, and members the calls that write them."""

    def __init__(self, spool: Path, rows_per_shard: int, row_bytes: int) -> None:
        self._spool, self._rows_per_shard, self._row_bytes = spool, rows_per_shard, row_bytes
        self._splits = [_Split(name) for name in work.SPLITS]
        self._left: dict[tuple[int, int], int] = {}  # rows of a piece that are not written yet
        self.waiting = 0  # bytes of all those
        self.written: dict[str, dict[str, Any]] = {}
        self.dealer: deal.Dealer

    def place(self, piece: tuple[int, int], rows: Iterable[int]) -> None:
        """Places the rows of the next piece, so many of each split."""
        counts, offset = list(rows), 0
        self._left[piece] = sum(counts)
        self.waiting += sum(counts) * self._row_bytes
        for split, count in zip(self._splits, counts, strict=True):
            while count:
                taken = min(count, self._rows_per_shard - split.filled)
                last = split.filled + taken == self._rows_per_shard
                self._write(split, [Rows(piece, offset, taken)], last)
                offset, count = offset + taken * self._row_bytes, count - taken
        if not sum(counts):
            self._remove(piece)

    def close(self) -> None:
        """Ends the shards that are not full."""
        for split in self._splits:
            if split.member is not None:
                self._write(split, [], last=True)

    def named(self, folder: Path) -> list[dict[str, Any]]:
        """Gives all shards their names; what is said of them, in their order."""
        said = {
            split.name: [self.written[shards.unnamed(split.name, n)] for n in range(split.number)]
            for split in self._splits
        }
        return [one for split, of in said.items() for one in shards.named(folder, split, of)]

    def _write(self, split: _Split, parts: list[Rows], last: bool) -> None:
        if split.member is None:
            split.member = self._chosen()
        shard, own = split.shard, self.dealer.own[split.member]

        def then(said: dict[str, Any] | None) -> None:
            for part in parts:
                self.waiting -= part.rows * self._row_bytes
                self._left[part.piece] -= part.rows
                if not self._left[part.piece]:
                    self._remove(part.piece)
            if said is not None:
                self.written[shard] = said

        own.append(deal.Call("write", (shard, parts, last), then))
        split.filled += sum(part.rows for part in parts)
        if last:
            split.number, split.filled, split.member = split.number + 1, 0, None

    def _chosen(self) -> int:
        """The member with the least to write and to read."""
        own = self.dealer.own
        return min(
            range(len(own)), key=lambda member: (len(own[member]), self.dealer.reader(member))
        )

    def _remove(self, piece: tuple[int, int]) -> None:
        del self._left[piece]
        rows_path(self._spool, piece).unlink()


class Written(NamedTuple):
    """What is said of every shard, the counts by split, and what `Corpus.describe_one` says of every input."""

    shards: list[dict[str, Any]]
    counts: dict[str, "collections.Counter[str]"]
    inputs: list[dict[str, Any]]


def write(
    workers: int, corpus: Corpus, job: work.Job, folder: Path, rows_per_shard: int
) -> Written:
    """Writes the corpus as shards into `folder`, rows in the order of the text, by so many processes (1: this one)."""
    with tqdm(total=corpus.stored, unit="B", unit_scale=True, desc="prepare", disable=None) as bar:
        if workers == 1:
            return _alone(corpus, job, folder, rows_per_shard, bar.update)
        return _by_team(workers, corpus, job, folder, rows_per_shard, bar.update)


def _alone(
    corpus: Corpus,
    job: work.Job,
    folder: Path,
    rows_per_shard: int,
    consumed: documents.Consumed,
) -> Written:
    counts = {split: collections.Counter[str]() for split in work.SPLITS}
    writers = {split: shards.Shards(folder, split, rows_per_shard) for split in work.SPLITS}
    make = work.Maker(job)
    for block in (b for file in range(len(corpus)) for b in corpus.blocks(file, consumed)):
        made = make(block)
        for split, writer in writers.items():
            writer.write(made.records[split])
            counts[split].update(made.counts[split])
    written = [shard for writer in writers.values() for shard in writer.finish()]
    return Written(written, counts, [corpus.describe_one(file) for file in range(len(corpus))])


def _by_team(
    workers: int,
    corpus: Corpus,
    job: work.Job,
    folder: Path,
    rows_per_shard: int,
    consumed: documents.Consumed,
) -> Written:
    spool = folder / "spool"
    spool.mkdir()
    row_bytes = _row_bytes(job)
    most_waiting = max(_WAITING, 2 * rows_per_shard * row_bytes)
    most_waiting = min(most_waiting, shutil.disk_usage(folder).free // 4)
    placing = _Placing(spool, rows_per_shard, row_bytes)
    dropped = pieces.dropped_of(corpus)
    bare = dataclasses.replace(corpus, dropped=frozenset())
    described: dict[int, list[dict[str, Any]]] = {}

    def opened(of: range) -> None:
        then = functools.partial(described.__setitem__, of.start)
        dealer.anyone.append(deal.Call("describe", (of,), then))

    with Team(workers, Builder, (bare, job, folder, spool)) as team:
        dealer = placing.dealer = deal.Dealer(
            team,
            corpus.runs(),
            most_waiting,
            consumed,
            room=lambda: placing.waiting < most_waiting,
            opened=opened,
            told=lambda of: ({file: dropped[file] for file in of if file in dropped},),
        )
        for run, piece, rows in dealer.results():
            placing.place((run, piece), rows)
        placing.close()
        dealer.finish()
        counts = {split: collections.Counter[str]() for split in work.SPLITS}
        for counted in team.all("counts"):
            for split in counts:
                counts[split].update(counted[split])
    spool.rmdir()
    return Written(
        placing.named(folder), counts, [one for at in sorted(described) for one in described[at]]
    )


def _row_bytes(job: work.Job) -> int:
    return record.size(job.plan.seq_len, record.dtype_for(job.tokenizer.size))
