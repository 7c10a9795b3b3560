"""The place where tasks leave what others read: a folder that all machines mount, or one on a bucket.

A piece appears whole or not at all, and a task that runs twice writes the same bytes, so that engines may try again.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from electra_jax import files, remote

# Hidden names: of what is being written.
_SCRATCH = ".scratch-"


class Store:
    """Pieces by name below a folder or URL."""

    def __init__(self, root: str) -> None:
        self._root, self._remote = root, remote.is_remote(root)

    def names(self) -> set[str]:
        """The pieces that are there."""
        found = remote.sizes(self._root) if self._remote else os.listdir(self._root)
        return {name for name in found if not name.startswith(".")}

    def has(self, name: str) -> bool:
        """Whether a piece is there."""
        if self._remote:
            return bool(remote.sizes(self._at(name)))
        return os.path.exists(self._at(name))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes [start, stop) of a piece."""
        if self._remote:
            return remote.read(self._at(name), start, stop)
        with open(self._at(name), "rb") as f:
            f.seek(start)
            return f.read(-1 if stop is None else stop - start)

    def write(self, name: str, data: bytes) -> None:
        """Writes a small piece."""
        if self._remote:
            remote.write(self._at(name), data)
        else:
            files.write_bytes(self._at(name), data)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on this machine's disk, or beside the pieces, from which `put` takes files; removed at the end."""
        if self._remote:
            with remote.scratch("prepare") as folder:
                yield folder
        else:
            with (
                files.disk_errors(self._root),
                tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._root) as held,
            ):
                yield Path(held)

    def put(self, made: Path, name: str) -> None:
        """Makes a file of `scratch` a piece."""
        if self._remote:
            remote.send(made, self._at(name))
            return
        with files.disk_errors(self._root):
            with open(made, "rb") as f:
                os.fsync(f.fileno())
            os.replace(made, self._at(name))

    def take(self, name: str, target: Path, sha256: str) -> None:
        """Moves a piece to its last place; UserError where it does not have the checksum it was written with."""
        if self._remote:
            remote.fetch(self._at(name), target, sha256)
        else:
            os.replace(self._at(name), target)

    def remove(self) -> None:
        """Removes all pieces on a bucket; those on a disk go with their folder."""
        if self._remote:
            for name in remote.sizes(self._root):
                remote.delete(self._at(name))

    def _at(self, name: str) -> str:
        return remote.join(self._root, name) if self._remote else os.path.join(self._root, name)


def deal(store: Store, name: str, rows: np.ndarray, places_N: np.ndarray, count: int) -> None:
    """Writes rows so that those of one place, of `count`, can be read without the others; they keep their order."""
    order_N = np.argsort(places_N, kind="stable")
    ends = np.searchsorted(places_N[order_N], np.arange(count + 1)).astype("<u8")
    store.write(name, ends.tobytes() + rows[order_N].tobytes())


def dealt(store: Store, name: str, place: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The rows of one place."""
    start, stop = np.frombuffer(store.read(name, 8 * place, 8 * place + 16), "<u8").tolist()
    if start == stop:
        return np.empty(0, dtype)
    base = 8 * (count + 1)
    size = dtype.itemsize
    return np.frombuffer(store.read(name, base + start * size, base + stop * size), dtype)
