"""The files of a prepared folder that TFDS reads: ArrayRecord shards and their metadata."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from electra_jax import files
from electra_jax.data import record
from electra_jax.spec import UserError

DATASET = "electra_rows"

# What the fingerprint says of a shard, in this order.
_SAID = ("name", "split", "rows", "bytes", "sha256")

# One record a chunk, so that a row is read without its neighbours. Compressed by the format's
# default, zstd: 0.3 kB a row of 128 tokens instead of 1.1, at 120,000 rows/s written.
_WRITER_OPTIONS = "group_size:1"

# Bytes of a shard before compression, which leaves a quarter. Corpora too large for this many
# shards get larger ones, because a reader holds all of them open.
_SHARD_BYTES, _MOST_SHARDS = 2**28, 512

# Bytes of records for a stored byte of input: a compressed text has some four characters to the
# byte and four characters to the token, and a token takes eight bytes of a record.
_RECORD_BYTES_PER_INPUT_BYTE = 8


def rows_per_shard(seq_len: int, vocab_size: int, input_bytes: int) -> int:
    """How many rows a shard holds, given the stored size of the inputs."""
    row_bytes = record.size(seq_len, record.dtype_for(vocab_size))
    wanted = max(_SHARD_BYTES, input_bytes * _RECORD_BYTES_PER_INPUT_BYTE // _MOST_SHARDS)
    return max(1, wanted // row_bytes)


def expected(input_bytes: int) -> int:
    """About how many shards the rows of so many stored bytes of input fill."""
    records = input_bytes * _RECORD_BYTES_PER_INPUT_BYTE
    return max(1, -(-records // max(_SHARD_BYTES, records // _MOST_SHARDS)))


def name(split: str, number: int, count: int) -> str:
    """The file name of a shard."""
    return f"{DATASET}-{split}.array_record-{number:05d}-of-{count:05d}"


def unnamed(split: str, number: int) -> str:
    """The file name of a shard while nobody knows how many there will be."""
    return f"{split}-{number:05d}"


class Shard:
    """Writes the records of one shard."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows = path, 0
        with files.disk_errors(path):
            path.touch()
        self._writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)

    def write(self, records_NxR: np.ndarray) -> None:
        """Appends records, uint8 [N, record bytes]. Raises UserError when the disk refuses."""
        with self._errors():
            write = self._writer.write
            for one in records_NxR:
                write(one.tobytes())
        self._rows += len(records_NxR)

    def close(self) -> dict[str, Any]:
        """Makes the file whole and durable; its name, rows, bytes and sha256."""
        with self._errors():
            self._writer.close()
        with files.disk_errors(self._path), open(self._path, "rb") as file:
            os.fsync(file.fileno())
        return {
            "name": self._path.name,
            "rows": self._rows,
            "bytes": self._path.stat().st_size,
            "sha256": files.sha256(self._path),
        }

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"cannot write {self._path}: {error}; "
                "is the disk full? Free some space and run the command again"
            ) from error


class Shards:
    """Writes the records of one split into as many shards as they fill. Rows keep their order."""

    def __init__(self, folder: Path, split: str, rows_per_shard: int) -> None:
        self._folder, self._split, self._rows_per_shard = folder, split, rows_per_shard
        self._said: list[dict[str, Any]] = []
        self._open: Shard | None = None
        self._left = 0  # rows that the open shard takes

    def write(self, records_NxR: np.ndarray) -> None:
        """Appends records, uint8 [N, record bytes]. Raises UserError when the disk refuses."""
        while len(records_NxR):
            if self._open is None:
                self._open = Shard(self._folder / unnamed(self._split, len(self._said)))
                self._left = self._rows_per_shard
            taken, records_NxR = records_NxR[: self._left], records_NxR[self._left :]
            self._open.write(taken)
            self._left -= len(taken)
            if not self._left:
                self._close()

    def finish(self) -> list[dict[str, Any]]:
        """Closes and names the shards; returns for each its name, split, rows, bytes and sha256."""
        self._close()
        return named(self._folder, self._split, self._said)

    def _close(self) -> None:
        if self._open is not None:
            self._said.append(self._open.close())
            self._open = None


def named(folder: Path, split: str, said: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives all shards of a split, in their order, their names, and says what `Shard.close` said of them."""
    out = []
    for number, one in enumerate(said):
        path = (folder / one["name"]).rename(folder / name(split, number, len(said)))
        out.append({**one, "name": path.name, "split": split})
    return [{key: one[key] for key in _SAID} for one in out]


def write_metadata(
    folder: Path, shards: list[dict[str, Any]], seq_len: int, dtype: np.dtype
) -> None:
    """Writes what `tfds.builder_from_directory` needs to read the folder's splits."""
    import tensorflow_datasets as tfds  # takes a second, and memory that workers do without

    shape = (len(record.FIELDS), seq_len)
    row = tfds.features.Tensor(
        shape=shape, dtype=dtype.newbyteorder("="), encoding="bytes", doc=", ".join(record.FIELDS)
    )
    size = record.size(seq_len, dtype)
    splits = []
    for split in sorted({s["split"] for s in shards}):
        lengths = [s["rows"] for s in shards if s["split"] == split]
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=DATASET, split=split, filetype_suffix="array_record"
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=sum(lengths) * size,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict({record.FEATURE: row}),
        split_infos=splits,
        check_data=False,
        description=f"Rows of {seq_len} tokens, each a [fields, tokens] array, for electra_jax.",
    )
