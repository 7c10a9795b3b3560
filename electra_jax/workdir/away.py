"""A workdir on a bucket: a local copy of its small files, sent back whole; checkpoints lie on the bucket itself.

The bucket is the truth. A start fetches everything but the checkpoints into a new local folder,
writes there, and sends what has changed before each checkpoint and at the end; the copy is then
removed. What a killed start had not sent belongs to steps that the next start takes again.

Of a `whole` workdir the copy holds checkpoints, too, and sends them behind the run's back as they become whole: for
buckets that Orbax does not write to (s3://), and for fine-tuning, whose many small checkpoints come and go. Each has
the mark that Orbax gives those on a bucket, sent last.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from electra_jax import answers, files, remote
from electra_jax.answers import BucketError
from electra_jax.learn import stored
from electra_jax.learn.unconfirmed import NOTE
from electra_jax.spec import UserError
from electra_jax.workdir.lock import lock
from electra_jax.workdir.owner import Owner, owned

SEND_S = 10.0  # between two looks for what there is to send of a whole workdir
_NEWEST = 3  # checkpoints that a start fetches: one to go on from, and others in case it is damaged


class Home:
    """Where a workdir's small files are read and written on this machine."""

    def __init__(self, folder: Path, url: str = "", whole: bool = False) -> None:
        """`folder` is empty where there is a `url`: what is on the bucket is fetched."""
        self.folder, self._url, self._whole = folder, url, whole
        self._owner: Owner | None = None
        self._sending = threading.Lock()
        self._versions: dict[str, str] = {}
        if url:
            self._fetch()
        self._sent = self._states()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the workdir; UserError naming who holds it already. Only the first process calls it."""
        if not self._url:
            with lock(self.folder):
                yield
            return
        with owned(self._url) as self._owner:
            self._fetch()  # whoever held it until now may have written
            self._sent = self._states()
            with self._sent_behind() if self._whole else contextlib.nullcontext():
                yield

    def send(self) -> None:
        """Copies what has changed since the last time to the bucket; nothing for a local workdir.

        Only the first process of a multi-process run should call it. Raises UserError when the workdir has come into
        other hands, BucketError when the bucket cannot be written: what was not sent is sent the next time.
        """
        if not self._url:
            return
        with self._sending:
            if self._owner is not None:
                self._owner.check()
            now = self._states()
            for name in sorted(now, key=_rank):
                if self._sent.get(name) != now[name] and self._send(name):
                    self._sent[name] = now[name]
            gone = self._sent.keys() - now.keys() if self._whole else ()
            for name in sorted(gone, key=_rank, reverse=True):
                remote.delete(remote.join(self._url, name))
                del self._sent[name]

    def _send(self, name: str) -> bool:
        """Sends one file; whether it was still there."""
        there, path = remote.join(self._url, name), self.folder / name
        if _is_mark(name):
            if path.parent.is_dir():
                remote.write(there, b"")
            return True  # where it has been removed since, what was sent of it is removed the next time
        try:
            remote.send(path, there)
        except (OSError, UserError):
            if path.exists():
                raise
            return False
        return True

    @contextlib.contextmanager
    def _sent_behind(self) -> Iterator[None]:
        """Inside, a thread sends what changes; a bucket that refuses is tried again, and said once."""
        closing, refused = threading.Event(), False

        def work() -> None:
            nonlocal refused
            while not closing.wait(SEND_S):
                try:
                    self.send()
                    refused = False
                except UserError as error:
                    if not refused:
                        _warn(f"{error}; it is tried again every {SEND_S:.0f} s")
                    refused = True

        thread = threading.Thread(target=work, name="send", daemon=True)
        thread.start()
        try:
            yield
        finally:
            closing.set()
            thread.join()
            self.send()  # while it is held

    def unsent(self) -> bool:
        """Whether there is something that the bucket does not have."""
        return any(self._sent.get(name) != state for name, state in self._states().items())

    def keep(self) -> None:
        """Makes the copy one that may be put on the bucket by other means."""
        for name in self._states():
            if _is_mark(name):
                (self.folder / name).touch()

    def _states(self) -> dict[str, tuple[int, int]]:
        """What tells that a file has changed, by name; a mark for every checkpoint that is whole."""
        found: dict[str, tuple[int, int]] = {}
        if not self._url:
            return found
        # Marks first: what is whole now has all its files in what follows. os.walk passes over what vanishes meanwhile.
        for parent, folders, _ in os.walk(self.folder) if self._whole else ():
            if os.path.basename(parent) == stored.FOLDER:
                marks = (Path(parent, n, stored.COMMITTED) for n in folders if n.isdecimal())
                found |= {mark.relative_to(self.folder).as_posix(): (0, 0) for mark in marks}
        for parent, _, names in os.walk(self.folder):
            for path in (Path(parent, name) for name in sorted(names)):
                name = path.relative_to(self.folder).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    if _is_kept(name):
                        stat = path.stat()
                        found[name] = stat.st_mtime_ns, stat.st_size
        return found

    def _fetch(self) -> None:
        """Copies what is new on the bucket and is kept here."""
        now = remote.versions(self._url)
        names = _wanted(now, self._whole)
        if self._whole and self._owner is not None:  # what killed starts had not sent to the end
            for name in now.keys() - names:
                if _step(name) and f"{_step(name)}/{stored.COMMITTED}" not in now:
                    remote.delete(remote.join(self._url, name))
        for name in self._versions.keys() - now.keys():
            (self.folder / name).unlink(missing_ok=True)
        changed = [name for name in sorted(names) if self._versions.get(name) != now[name]]
        sizes = remote.sizes(self._url) if changed else {}
        places = {remote.join(self._url, name): self.folder / name for name in changed}
        remote.fetch_all(places, sum(sizes.get(name, 0) for name in changed), self._url)
        self._versions = now


def _rank(name: str) -> tuple[int, str]:
    """The order in which files are sent: what vouches for others comes after them."""
    last = name.rpartition("/")[2] in ("result.json", "results.json")
    return (3 if last else 2 if _is_mark(name) else 1 if _step(name) else 0), name


def _step(name: str) -> str:
    """The folder of the checkpoint that a file belongs to; empty for other files."""
    parts = name.split("/")
    for i, part in enumerate(parts[:-2]):
        if part == stored.FOLDER and parts[i + 1].isdecimal():
            return "/".join(parts[: i + 2])
    return ""


def _is_mark(name: str) -> bool:
    return bool(_step(name)) and name == f"{_step(name)}/{stored.COMMITTED}"


def _is_kept(name: str) -> bool:
    """Whether a file belongs to the workdir: not what is hidden or half-written."""
    *folders, last = name.split("/")
    hidden = last.startswith(".") and not last.startswith(NOTE)
    return not hidden and not any(stored.is_partial(folder) for folder in folders)


def _wanted(there: Mapping[str, str], whole: bool) -> set[str]:
    """The files on a bucket that a copy of the workdir holds."""
    kept = {name for name in there if _is_kept(name)}
    if not whole:
        return {name for name in kept if stored.FOLDER not in name.split("/")[:-1]}
    steps = {step for step in map(_step, kept) if f"{step}/{stored.COMMITTED}" in there}
    newest: set[str] = set()
    for folder in {step.rpartition("/")[0] for step in steps}:
        mine = [step for step in steps if step.rpartition("/")[0] == folder]
        newest |= set(sorted(mine, key=lambda step: int(step.rpartition("/")[2]))[-_NEWEST:])
    return {name for name in kept if _step(name) in newest | {""} and not _is_mark(name)}


@contextlib.contextmanager
def opened(workdir: str | Path, write: bool = True, whole: bool = False) -> Iterator[Home]:
    """The home of a workdir. `write`: what is left there when the context ends is sent to the bucket.

    `whole`: checkpoints are written to the copy and sent from there. Raises UserError for a file in its place and,
    before anything is copied, for a bucket that cannot be listed or written to. What cannot be sent at the end is kept,
    and BucketError says where.
    """
    if not remote.is_remote(workdir):
        _refuse_file(Path(workdir))
        yield Home(Path(workdir))
        return
    url = str(workdir).rstrip("/")
    if whole and jax.process_count() > 1:
        raise UserError(
            f"workdir {url}: several processes write a checkpoint together, which this program does on gs:// and on a "
            "file system that they share; on this bucket a run has one process"
        )
    remote.check_access(url, write)
    copies = remote.cache_folder("workdirs")
    files.make_folder(copies)
    with files.disk_errors(copies):
        top = Path(tempfile.mkdtemp(dir=copies))
    folder = top / answers.inner(url)  # so that messages show which it is
    home, keep = None, False
    try:
        folder.mkdir(parents=True)
        with remote.named({str(folder): url}):
            home = Home(folder, url, whole)
            if not whole:
                place = remote.join(url, stored.FOLDER)
                files.write_text(folder / stored.ELSEWHERE, place)
            try:
                yield home
            except BaseException:
                if write:
                    with contextlib.suppress(UserError):  # the first error is the one to tell
                        home.send()
                raise
            if write:
                home.send()
    except BucketError as error:
        if not write or home is None or not home.unsent():
            raise
        keep = True
        home.keep()
        error.args = (f"{error}. What was not sent is kept in {folder}",)
        raise
    finally:
        if not keep:
            shutil.rmtree(top, ignore_errors=True)


def holds_checkpoints(workdir: str | Path) -> bool:
    """Whether checkpoints of pretraining are written to this place itself, not to a copy."""
    return not remote.is_remote(workdir) or remote.writes_arrays(workdir)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _refuse_file(workdir: Path) -> None:
    with files.disk_errors(workdir):
        for path in (workdir, *workdir.parents):
            if path.is_dir():
                return
            if path.exists():
                raise UserError(f"workdir {workdir}: {path} is a file; name a folder")
