"""Marks on this machine that say which files were hashed, so that its processes and later starts need not do it again.

A mark holds a file's SHA-256 and what tells that it is still the same file: device, inode, size, times of the last
change of content and of status. A file that changed less than two seconds before its hashing began gets no mark: on
some file systems a change so soon after would leave these numbers as they are.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from electra_jax import files, remote

_RACY_NS = 2_000_000_000


def identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is exchanged or written to; empty where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(path: Path) -> str | None:
    """The SHA-256 of a file that is marked and has not changed since."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        mark = json.loads(_mark(path).read_bytes())
        if isinstance(mark, dict) and mark.get("identity") == list(identity(path)):
            return str(mark.get("sha256"))
    return None


def write(path: Path, sha256: str, hashed: tuple[int, ...]) -> None:
    """Marks a file whose identity was `hashed` before it was read; nothing where the cache folder cannot be written."""
    with contextlib.suppress(OSError, RuntimeError):
        mark = _mark(path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        begun = os.stat(
            _lock(path)
        ).st_mtime_ns  # by the clock of a file system, as the file's own times
        if begun - max(hashed[3:]) > _RACY_NS:
            files.write_bytes(mark, json.dumps({"identity": hashed, "sha256": sha256}).encode())


def write_copied(path: Path, sha256: str) -> None:
    """Marks a file that this program wrote itself and hashed on the way."""
    with contextlib.suppress(OSError, RuntimeError):
        mark = _mark(path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": identity(path), "sha256": sha256}
        files.write_bytes(mark, json.dumps(content).encode())


@contextlib.contextmanager
def hashing(path: Path) -> Iterator[bool]:
    """Whether this process may hash the file now: False while another one of this machine does it."""
    with contextlib.ExitStack() as held:
        try:
            lock = _lock(path)
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = held.enter_context(open(lock, "ab"))
        except (OSError, RuntimeError):
            yield True  # no cache folder, so nobody else's marks either
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.utime(lock)  # when hashing began
        yield True


def _mark(path: Path) -> Path:
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    return remote.cache_folder("verified") / f"{name}.json"


def _lock(path: Path) -> Path:
    return _mark(path).with_suffix(".lock")
