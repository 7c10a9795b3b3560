"""A workdir on a bucket: a local copy of its small files, sent back whole; checkpoints lie on the bucket itself.

The bucket is the truth. A start fetches everything but the checkpoints into a new local folder,
writes there, and sends what has changed before each checkpoint and at the end; the copy is then
removed. What a killed start had not sent belongs to steps that the next start takes again.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from electra_jax import files, remote
from electra_jax.spec import UserError
from electra_jax.train import checkpoint
from electra_jax.train.lock import lock
from electra_jax.train.owner import Owner, owned


class Home:
    """Where a workdir's small files are read and written on this machine."""

    def __init__(self, folder: Path, url: str = "") -> None:
        """`folder` already holds what is on the bucket."""
        self.folder, self._url = folder, url
        self._sent = self._states()
        self._owner: Owner | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the workdir; UserError naming who holds it already. Only the first process calls it."""
        if not self._url:
            with lock(self.folder):
                yield
            return
        with owned(self._url) as self._owner:
            _fetch(self._url, self.folder)  # whoever held it until now may have written
            self._sent = self._states()
            yield

    def send(self) -> None:
        """Copies what has changed since the last time to the bucket; nothing for a local workdir.

        Only the first process of a multi-process run should call it. Raises UserError when the
        workdir has come into other hands.
        """
        if not self._url:
            return
        if self._owner is not None:
            self._owner.check()
        for name, state in self._states().items():
            if self._sent.get(name) != state:
                remote.send(self.folder / name, remote.join(self._url, name))
                self._sent[name] = state

    def _states(self) -> dict[str, tuple[int, int]]:
        """What tells that a file has changed, by name."""
        if not self._url:
            return {}
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name[0] != ".":
                stat = path.stat()
                found[path.relative_to(self.folder).as_posix()] = stat.st_mtime_ns, stat.st_size
        return found


@contextlib.contextmanager
def opened(workdir: str | Path, write: bool = True) -> Iterator[Home]:
    """The home of a workdir. `write`: what is left there when the context ends is sent to the bucket.

    Raises UserError for a file in its place and, before anything is copied, for a bucket that cannot be listed or
    written to.
    """
    if not remote.is_remote(workdir):
        _refuse_file(Path(workdir))
        yield Home(Path(workdir))
        return
    url = str(workdir).rstrip("/")
    remote.check_access(url, write)
    copies = remote.cache_folder("workdirs")
    files.make_folder(copies)
    with files.disk_errors(copies):
        top = Path(tempfile.mkdtemp(dir=copies))
    try:
        folder = top / url.removeprefix("gs://")  # so that messages show which it is
        folder.mkdir(parents=True)
        _fetch(url, folder)
        files.write_text(folder / checkpoint.ELSEWHERE, remote.join(url, checkpoint.FOLDER))
        home = Home(folder, url)
        try:
            yield home
        except BaseException:
            if write:
                with contextlib.suppress(UserError):  # the first error is the one to tell
                    home.send()
            raise
        if write:
            home.send()
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _refuse_file(workdir: Path) -> None:
    with files.disk_errors(workdir):
        for path in (workdir, *workdir.parents):
            if path.is_dir():
                return
            if path.exists():
                raise UserError(f"workdir {workdir}: {path} is a file; name a folder")


def _fetch(url: str, folder: Path) -> None:
    """Copies everything but checkpoints and what begins with a dot."""
    for name in remote.sizes(url):
        parts = name.split("/")
        if parts[0] != checkpoint.FOLDER and not parts[-1].startswith("."):
            remote.fetch(remote.join(url, name), folder / name)
