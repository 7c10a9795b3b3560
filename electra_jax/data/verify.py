"""Every byte of the shards against the checksums of the fingerprint, in the background, before anything is kept.

Reading a row checks only what ArrayRecord checks, its chunk. A file exchanged as a whole, at rest or under a
running program, passes that; so the files are hashed once, by a thread, and must stay the same files.
"""

import hashlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from electra_jax import files
from electra_jax.data import fingerprint
from electra_jax.data.source import Prepared
from electra_jax.spec import UserError

_BLOCK = (
    2**22
)  # bytes hashed between looks at the closing flag; hashlib lets other threads run meanwhile


class Verification:
    """Hashes the shards of prepared folders behind the run's back; a context manager.

    What is computed from rows before `settle` has returned must not be kept.
    """

    def __init__(self, *folders: Prepared) -> None:
        shards = [(data.path, s) for data in folders for s in data.info["shards"]]
        self._shards = [(path / s["name"], s["sha256"]) for path, s in shards]
        self.total = sum(s["bytes"] for _, s in shards)
        self.done = 0  # bytes hashed so far
        self._identities: dict[Path, tuple[int, ...]] = {}
        self._error: UserError | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verification", daemon=True)

    def __enter__(self) -> Self:
        self._identities = {path: files.identity(path) for path, _ in self._shards}
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
        """Raises what was found wrong so far; does not wait."""
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Returns when every shard is what the fingerprint says, and still the file that was hashed.

        Raises UserError naming the shard that is not.
        """
        self._thread.join()
        self.check()
        for path, identity in self._identities.items():
            if files.identity(path) != identity:
                raise UserError(
                    f"{path} was replaced or changed while the run was reading it; nothing that came "
                    "of it was kept. Put the original folder back and start again"
                )

    def _run(self) -> None:
        try:
            for path, expected in self._shards:
                found = self._sha256(path)
                if found is not None and found != expected:
                    self._error = UserError(
                        f"{path} has the sha256 {found}, {fingerprint.NAME} says {expected}: its content is "
                        "damaged; nothing that came of it was kept. Copy the folder again or prepare it again"
                    )
                    return
        except OSError as error:
            self._error = UserError(
                f"cannot read {error.filename or 'the data'}: {error.strerror}; is the disk all right?"
            )

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
