"""Shards of a folder on a bucket, fetched when their rows are near and removed when others need the room.

Every shard is hashed on its way and marked (marks.py), so that no row of it is read before its content was verified.
The processes of a machine share one copy.
"""

import concurrent.futures
import contextlib
import fcntl
import itertools
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from electra_jax import activity, answers, files, remote
from electra_jax.data import marks
from electra_jax.spec import UserError

# Bytes that shards may take on local disk: unset, all that is free but for what `remote` leaves.
LIMIT = "ELECTRA_JAX_CACHE_BYTES"
_AT_ONCE = 4  # shards fetched at the same time
# Seconds before another try where a bucket's refusal may pass.
_PAUSES_S = (1.0, 5.0)
_LOCK = ".lock"

Coming = concurrent.futures.Future[Path]


class Shards:
    """The shards of the prepared folder at `url`, some of them in the local `folder`. Safe to use from threads."""

    def __init__(self, url: str, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        self.url, self._folder = url, folder
        self._shards = {s["name"]: s for s in shards}
        self._coming: dict[str, Coming] = {}
        self._lock = threading.Lock()
        self._queue: queue.PriorityQueue[tuple[bool, int, str, Coming]] = queue.PriorityQueue()
        self._asked = itertools.count()
        self._workers: list[threading.Thread] = []

    def get(self, name: str) -> Path:
        """The verified local copy of a shard, fetched first where it is not there.

        Raises BucketError for a bucket that refuses or stalls, UserError for damaged content and a full disk.
        """
        while True:
            coming = self._ask(name)
            if not coming.done():
                with activity.doing(f"waiting for {remote.join(self.url, name)}"):
                    concurrent.futures.wait([coming])
            path = coming.result()
            if path.exists():
                return path
            with self._lock:  # it had to go, for another process needed the room
                self._coming.pop(name, None)

    def expect(self, names: Iterable[str], soon: bool = True) -> None:
        """Fetches what will be read `soon`, or now, which goes first. Does not wait; `get` raises what goes wrong."""
        for name in names:
            self._ask(name, soon)

    def check_room(self, needed: int, what: str) -> None:
        """UserError where the cache cannot hold `needed` bytes at once."""
        limit = self._limit()
        if needed > limit:
            raise UserError(
                f"{what} of {self.url} need {needed / 1e9:.2f} GB of local disk at once, and the cache may hold "
                f"{limit / 1e9:.2f} GB; name a folder on a larger disk in {remote.CACHE}, raise {LIMIT}, or set a "
                "smaller --config.data.window"
            )

    def _ask(self, name: str, soon: bool = False) -> Coming:
        with self._lock:
            coming = self._coming.get(name)
            if coming is None or (coming.done() and coming.exception()):
                coming = self._coming[name] = concurrent.futures.Future()
            elif soon or coming.running() or coming.done():
                return coming
            # One that was wanted soon and is wanted now stands in the queue twice.
            self._queue.put((soon, next(self._asked), name, coming))
            if not self._workers:
                # Daemons: one that hangs in a bucket does not delay the end of the process.
                self._workers = [
                    threading.Thread(target=self._work, daemon=True) for _ in range(_AT_ONCE)
                ]
                for worker in self._workers:
                    worker.start()
            return coming

    def _work(self) -> None:
        while True:
            _, _, name, coming = self._queue.get()
            with self._lock:
                if coming.running() or coming.done():
                    continue
                coming.set_running_or_notify_cancel()
            try:
                coming.set_result(self._fetch(name))
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                coming.set_exception(error)

    def _fetch(self, name: str) -> Path:
        path, shard = self._folder / name, self._shards[name]
        with files.disk_errors(self._folder), open(self._folder / f".{name}{_LOCK}", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process of a machine fetches, the others wait
            if path.exists() and marks.read(path) == shard["sha256"]:
                return path
            path.unlink(missing_ok=True)
            try:
                self._make_room(shard["bytes"], lock)
                self._copy(name, path, shard["sha256"])
            finally:
                lock.truncate(0)
            marks.write_copied(path, shard["sha256"])
            return path

    def _copy(self, name: str, path: Path, sha256: str) -> None:
        for pause in (*_PAUSES_S, None):
            try:
                remote.fetch(remote.join(self.url, name), path, sha256)
                return
            except answers.BucketError as error:
                if pause is None or getattr(error, "status", None) != answers.TRY_AGAIN:
                    raise
                time.sleep(pause)

    def _make_room(self, needed: int, reservation: IO[bytes]) -> None:
        """Removes the shards that came first, as many as must go, and makes `reservation` a file of that size.

        It is the lock under which a shard is fetched, empty at other times, so that what all processes of the machine
        fetch at once is counted.
        """
        with open(self._folder / ".room", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = self._there()
            coming = self._reserved()
            excess = sum(size for _, size, _ in there) + coming + needed - self._limit(coming)
            reservation.truncate(needed)  # sparse: it takes no room itself
            for _, size, path in sorted(there):
                if excess <= 0:
                    return
                path.unlink(missing_ok=True)
                with self._lock:
                    self._coming.pop(path.name, None)
                excess -= size

    def _reserved(self) -> int:
        """The bytes that are being fetched; what a process that was killed has reserved is given back."""
        total = 0
        with os.scandir(self._folder) as entries:
            locks = [e for e in entries if e.name.endswith(_LOCK) and e.stat().st_size]
        for entry in locks:
            with open(entry.path, "r+b") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    lock.truncate(0)
                except BlockingIOError:
                    if not (self._folder / entry.name[1 : -len(_LOCK)]).exists():
                        total += entry.stat().st_size
        return total

    def _there(self) -> list[tuple[float, int, Path]]:
        """(when it came, bytes, path) of the shards on local disk."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name in self._shards:
                    with contextlib.suppress(FileNotFoundError):
                        about = entry.stat()
                        found.append((about.st_mtime, about.st_size, Path(entry.path)))
        return found

    def _limit(self, coming: int = 0) -> int:
        """The bytes that shards may take; `coming` are those being fetched, partly on disk already."""
        text = os.environ.get(LIMIT, "")
        if text:
            if not text.isdecimal() or not int(text):
                raise UserError(
                    f"{LIMIT}={text!r} is no number of bytes; expected e.g. 200000000000"
                )
            return int(text)
        held = sum(size for _, size, _ in self._there())
        return max(0, shutil.disk_usage(self._folder).free + held - remote.SPARE_BYTES)
