"""Every byte of the shards against the checksums of the fingerprint, in the background, while the run goes on.

Reading a row checks only what ArrayRecord checks, its chunk. A file exchanged as a whole, at rest or under a
running program, passes that; so the files are hashed by a thread, once a machine (marks.py), and must stay the same
files.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from electra_jax import files
from electra_jax.data import fingerprint, marks
from electra_jax.data.source import Prepared
from electra_jax.spec import UserError

# Bytes hashed between looks at the closing flag; hashlib lets other threads run meanwhile.
_BLOCK = 2**22
_WAIT_S = 0.2  # between looks at a file that another process of this machine hashes


class Verification:
    """Hashes the shards of prepared folders behind the run's back; a context manager.

    What is computed from rows before `finished` is unconfirmed: it may be kept beside what was confirmed before,
    together with `pending`, by which a later start knows the files again.
    """

    def __init__(self, *folders: Prepared) -> None:
        # What a cache fetches is hashed on its way, before a row of it is read.
        here = [data for data in folders if data.cache is None]
        shards = [(data, s) for data in here for s in data.info["shards"]]
        self._shards = {data.path / s["name"]: s["sha256"] for data, s in shards}
        self._names = {
            data.path / s["name"]: f"{data.fingerprint[:16]}/{s['name']}" for data, s in shards
        }
        self.total = sum(s["bytes"] for _, s in shards)
        self.done = 0  # bytes hashed, or known from a mark, so far
        self._identities: dict[Path, tuple[int, ...]] = {}
        self._verified: set[Path] = set()
        self._error: UserError | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verification", daemon=True)

    def __enter__(self) -> Self:
        self._identities = {path: files.identity(path) for path in self._shards}
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._thread.join()

    def check(self) -> None:
        """Raises UserError, naming the shard, for what was found wrong so far; does not wait."""
        if self._error is not None:
            raise self._error

    def unchanged(self) -> None:
        """Raises UserError when a shard is no longer the file that was there at the start."""
        for path, identity in self._identities.items():
            if files.identity(path) != identity:
                raise UserError(
                    f"{path} was replaced or changed while the run was reading it; nothing that came "
                    "of it since was kept. Put the original folder back and start again"
                )

    @property
    def finished(self) -> bool:
        """Whether every shard is what the fingerprint says."""
        return len(self._verified) == len(self._shards)

    def settle(self) -> None:
        """Returns when every shard is what the fingerprint says, and still the file that was hashed.

        Raises UserError naming the shard that is not.
        """
        self._thread.join()
        self.check()
        self.unchanged()

    def pending(self, everything: bool = False) -> dict[str, list[int]]:
        """The shards that are not verified yet, or all: data set and name -> what tells this file from another."""
        return {
            self._names[path]: _across_starts(identity)
            for path, identity in self._identities.items()
            if everything or path not in self._verified
        }

    def unknown(self, pending: Mapping[str, Sequence[int]]) -> str | None:
        """One of the shards that an earlier start left `pending` and that is another file now, or None."""
        mine = self.pending(everything=True)
        return next((name for name, was in pending.items() if mine.get(name) != list(was)), None)

    def _run(self) -> None:
        try:
            for path, expected in self._shards.items():
                found = self._known(path)
                if found is None:
                    return  # told to stop
                if found != expected:
                    self._error = UserError(
                        f"{path} has the sha256 {found}, {fingerprint.NAME} says {expected}: its content is "
                        "damaged; nothing that came of it was kept. Copy the folder again or prepare it again"
                    )
                    return
                self._verified.add(path)
        except OSError as error:
            self._error = UserError(
                f"cannot read {error.filename or 'the data'}: {error.strerror}; is the disk all right?"
            )

    def _known(self, path: Path) -> str | None:
        """The SHA-256 of a file, from its mark or by hashing; None when told to stop half-way."""
        while not self._closing.is_set():
            with marks.hashing(path) as mine:
                found = marks.read(path)
                if found is not None:
                    self.done += path.stat().st_size
                    return found
                if mine:
                    identity = marks.identity(path)
                    found = self._sha256(path)
                    if found is not None:
                        marks.write(path, found, identity)
                    return found
            self._closing.wait(_WAIT_S)
        return None

    def _sha256(self, path: Path) -> str | None:
        """None when it was told to stop half-way."""
        digest = hashlib.sha256()
        with open(path, "rb") as f:
            while block := f.read(_BLOCK):
                if self._closing.is_set():
                    return None
                digest.update(block)
                self.done += len(block)
        return digest.hexdigest()


def _across_starts(identity: tuple[int, ...]) -> list[int]:
    """Without the device, whose number changes when a disk is attached again."""
    return list(identity[1:])
