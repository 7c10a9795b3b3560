"""A prepared folder opened for reading: rows by number, from any thread. What is held grows with the shards opened."""

import collections
import concurrent.futures
import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from electra_jax import remote
from electra_jax.data import fingerprint, packing, record, staged
from electra_jax.data.cache import Shards
from electra_jax.spec import UserError, unknown_name
from electra_jax.text.tokenizer import SpecialIds

# Random access: no read-ahead, no threads of the reader's own.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER = 8 * 1024
# Reading a list of records takes 2 ns for every row of the file beside what the records take, by one at a time nothing;
# but it is done by several threads, which is worth it for one row in so many.
_WORTH_A_LIST = 16384
# Threads of a source, and the fewest rows worth one.
_THREADS, _ROWS_A_THREAD = 8, 128


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `electra-jax prepare` made. `rows` counts rows by split ("train", "valid"); `info` is
    the content of fingerprint.json and `fingerprint` its hash, which stands for every byte of the
    data.
    """

    path: Path
    seq_len: int
    rows: dict[str, int]
    vocab_size: int
    special: SpecialIds
    tokenizer_hash: str
    fingerprint: str
    info: dict[str, Any]
    origin: str = (
        ""  # what others find it by: an absolute path, or the URL that `path` is a copy of
    )
    cache: Shards | None = None  # where `path` holds shards only while they are needed

    def shards(self, split: str) -> list[dict[str, Any]]:
        """The fingerprint's entries of "train" or "valid", in the order of their rows."""
        if split not in self.rows:
            raise unknown_name("split", split, self.rows)
        return [s for s in self.info["shards"] if s["split"] == split]

    def source(self, split: str, readers: int | None = None) -> "Source":
        """The rows of "train" or "valid"; at most `readers` shards stay open (None: all that were read from)."""
        shards = self.shards(split)
        return Source(
            [self.path / s["name"] for s in shards],
            [s["rows"] for s in shards],
            self.seq_len,
            np.dtype(self.info["dtype"]),
            self.special.pad,
            self.vocab_size,
            self.cache,
            readers,
        )


def open_prepared(path: str | Path, whole: bool = True) -> Prepared:
    """Opens a folder made by `prepare`; one on a bucket (gs://) is copied to local disk first, without its shards
    unless `whole`: they are then fetched when they are read.

    Raises UserError when it is none, of another layout version, or has a shard missing or cut
    short.
    """
    url = str(path) if remote.is_remote(path) else ""
    shards = None
    if url and not whole:
        path, info, digest, shards = staged.stream(url)
    else:
        path = staged.stage(url) if url else Path(path)
        info, digest = fingerprint.read(path)
    return Prepared(
        path=path,
        seq_len=info["seq_len"],
        rows={split: info["counts"][split]["rows"] for split in ("train", "valid")},
        vocab_size=info["vocab_size"],
        special=SpecialIds(**info["special"]),
        tokenizer_hash=info["tokenizer"]["hash"],
        fingerprint=digest,
        info=info,
        origin=url or str(path.resolve()),
        cache=shards,
    )


class Source:
    """The rows of one split, by number. Safe to use from several threads."""

    def __init__(
        self,
        paths: Sequence[Path],
        rows: Sequence[int],
        seq_len: int,
        dtype: np.dtype,
        pad: int,
        vocab_size: int,
        shards: Shards | None = None,
        readers: int | None = None,
    ) -> None:
        """`paths` and `rows` name the shards and count their rows; files are opened when first
        read, and come from `shards` where given. Ids are checked to be below `vocab_size`.

        An open shard takes about 20 bytes a row, the library's index; at most `readers` are open.
        """
        self._paths = list(paths)
        self._first = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._seq_len, self._dtype, self._pad = seq_len, dtype, pad
        self._vocab_size = vocab_size
        self._cache, self._most = shards, readers
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS, "rows")
        # Least recently used first.
        self._readers: collections.OrderedDict[int, _Reader] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._first[-1])

    def rows(self, numbers_N: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of these numbers, each int32 [N, L]: ids, types, docs, word_starts, positions.

        docs is 0 for padding, else the document's number in the row; types are segment ids;
        word_starts is 1 where a token begins a word; positions count from 0 in each document. A negative number gives
        an empty row: padding only. Raises IndexError beyond the end, UserError for damaged data.
        """
        numbers_N = np.asarray(numbers_N, np.int64)
        if numbers_N.size and numbers_N.max() >= len(self):
            raise IndexError(f"row {numbers_N.max()} of a split of {len(self)} rows")
        # Field first, so that each array handed out is contiguous.
        rows_FxNxL = np.zeros((len(record.FIELDS), numbers_N.size, self._seq_len), np.int32)
        rows_FxNxL[0] = self._pad
        shard_N = self._shards(numbers_N)
        self._fetch(shard_N, soon=False)
        shards = np.unique(shard_N[numbers_N >= 0]).tolist()

        def fill(some: list[int]) -> None:
            for shard in some:
                at = np.flatnonzero(shard_N == shard)
                found_NxFxL = self._read(shard, numbers_N[at] - self._first[shard])
                rows_FxNxL[:, at] = found_NxFxL.transpose(1, 0, 2)

        # Reading waits for the disk, and lets other threads run.
        ways = min(_THREADS, len(shards), numbers_N.size // _ROWS_A_THREAD)
        if ways < 2:
            fill(shards)
        else:
            list(self._pool.map(fill, (shards[way::ways] for way in range(ways))))
        out = dict(zip(record.FIELDS, rows_FxNxL, strict=True))
        out["positions"] = packing.positions(out["docs"])
        return out

    def expect(self, numbers_N: np.ndarray) -> None:
        """Says that these rows will be read soon, so that their shards can be fetched; does not wait."""
        self._fetch(self._shards(np.asarray(numbers_N, np.int64)), soon=True)

    def _fetch(self, shard_N: np.ndarray, soon: bool) -> None:
        if self._cache is not None:
            shut = [s for s in np.unique(shard_N).tolist() if s >= 0 and s not in self._readers]
            self._cache.expect((self._paths[s].name for s in shut), soon)

    def _shards(self, numbers_N: np.ndarray) -> np.ndarray:
        """The shard of each row; below 0 for a negative number."""
        return np.searchsorted(self._first, numbers_N, side="right") - 1

    def _read(self, shard: int, numbers: np.ndarray) -> np.ndarray:
        try:
            records = self._reader(shard).read(numbers.tolist())
            rows_NxFxL = record.decode(records, self._seq_len, self._dtype)
        except (ValueError, RuntimeError, IndexError, OSError) as error:
            raise UserError(
                f"cannot read {self._paths[shard]}: {error}. Its content is damaged; compare its "
                f"sha256 with {fingerprint.NAME}, copy the folder again or prepare it again"
            ) from error
        ids_NxL = rows_NxFxL[:, 0]
        if ids_NxL.min() < 0 or (largest := int(ids_NxL.max())) >= self._vocab_size:
            found = "a negative id" if ids_NxL.min() < 0 else f"the id {largest}"
            raise UserError(
                f"{self._paths[shard]} has {found}, {fingerprint.NAME} says that the vocabulary has "
                f"{self._vocab_size} entries: one of the two was damaged or edited; copy the folder "
                "again or prepare it again"
            )
        return rows_NxFxL

    def _reader(self, shard: int) -> "_Reader":
        with self._lock:
            found = self._readers.get(shard)
            if found is not None:
                self._readers.move_to_end(shard)
                return found
        path = self._paths[shard]
        if self._cache is not None:
            path = self._cache.get(path.name)
        opened = _Reader(path, int(self._first[shard + 1] - self._first[shard]))
        with self._lock:
            found = self._readers.setdefault(shard, opened)
            self._readers.move_to_end(shard)
            while self._most is not None and len(self._readers) > max(1, self._most):
                self._readers.popitem(last=False)
        return found


class _Reader:
    """An open shard. Raises ValueError where it does not hold `rows` rows."""

    def __init__(self, path: Path, rows: int) -> None:
        self._file = array_record_module.ArrayRecordReader(
            str(path), _READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER
        )
        self._rows = rows
        self._lock = threading.Lock()  # the file has one place
        if (found := self._file.num_records()) != rows:
            raise ValueError(f"it holds {found} rows, expected {rows}")

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """The records of these numbers."""
        if len(numbers) * _WORTH_A_LIST > self._rows:
            return list(self._file.read(numbers))
        out = []
        with self._lock:
            for number in numbers:
                self._file.seek(number)
                out.append(self._file.read())
        return out
