"""Folders on a bucket (gs://...): looked at before anything relies on them, copied to local disk and back."""

import concurrent.futures
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from electra_jax import files
from electra_jax.spec import UserError

# How long a bucket may take to answer the first question. Without credentials some readers wait for
# minutes and say nothing.
LIMIT_S = 20.0
CACHE = "ELECTRA_JAX_CACHE"
_BLOCK = 2**22
_PROBE = ".electra_jax-can-write"
# Left free on a disk that data are copied to: logs and temporary files need room, too.
_SPARE_BYTES = 2**28

T = TypeVar("T")


def is_remote(path: str | Path) -> bool:
    """Whether a path lies on a bucket. UserError for a kind of address that is not supported."""
    scheme = files.scheme(path)
    if scheme not in ("", "gs"):
        raise UserError(f"{path}: only gs:// (Google Cloud Storage) and local paths are supported")
    return scheme == "gs"


def cache_folder(name: str) -> Path:
    """`name` in the folder for copies of remote files: $ELECTRA_JAX_CACHE, else in the user's cache folder."""
    home = os.environ.get(CACHE)
    return (Path(home) if home else files.user_cache() / "electra_jax") / name


def join(url: str, *names: str) -> str:
    """The URL of something in a remote folder."""
    return "/".join([url.rstrip("/"), *names])


def check_access(url: str, write: bool = False) -> None:
    """Lists the folder, and with `write` makes and removes a small object in it, within LIMIT_S seconds.

    Raises UserError where there are no credentials, no permission, no such bucket, or no answer.
    The folder need not exist.
    """

    def ask() -> None:
        bucket = _file_system()
        with contextlib.suppress(
            FileNotFoundError
        ):  # of the folder; that of the bucket comes below
            bucket.ls(url, refresh=True)
            return
        bucket.ls(_bucket(url), refresh=True)

    def probe() -> None:
        bucket = _file_system()
        bucket.pipe_file(join(url, _PROBE), b"")
        bucket.rm_file(join(url, _PROBE))

    _answer(url, "list", ask)
    if write:
        _answer(url, "write to", probe)


def sizes(url: str) -> dict[str, int]:
    """Bytes of every file under a remote folder by its relative path; of a file under ""; empty where nothing is."""

    def ask() -> dict[str, int]:
        bucket = _file_system()
        bucket.invalidate_cache()
        found = bucket.find(url, detail=True)
        base = url.removeprefix("gs://").rstrip("/")
        return {
            name.removeprefix(base).lstrip("/"): int(row["size"]) for name, row in found.items()
        }

    return _answer(url, "list", ask)


def read(url: str) -> bytes:
    """The content of a small file; UserError when it cannot be read."""
    return _answer(url, "read", lambda: _file_system().cat_file(url))


def write(url: str, data: bytes) -> None:
    """Writes a small file: on a bucket an object is there whole or not at all."""
    _answer(url, "write", lambda: _file_system().pipe_file(url, data))


def delete(url: str) -> None:
    """Removes a file that may be gone already."""

    def ask() -> None:
        with contextlib.suppress(FileNotFoundError):
            _file_system().rm_file(url)

    _answer(url, "delete", ask)


def fetch(
    url: str, target: Path, sha256: str | None = None, told: Callable[[int], Any] = int
) -> None:
    """Copies a file to local disk, whole or not at all; `told` hears of the bytes as they come.

    Raises UserError when the content does not have the checksum, or cannot be read or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with files.new_file(target) as temporary:
        with (
            open(temporary, "wb") as out,
            _explained(url, "read"),
            _file_system().open(url) as f,
        ):
            while block := f.read(_BLOCK):
                out.write(block)
                digest.update(block)
                told(len(block))
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(
                f"{url} has the sha256 {digest.hexdigest()}, expected {sha256}: its content was "
                "damaged; copy it to the bucket again"
            )


def send(source: Path, url: str) -> None:
    """Copies a local file to a bucket."""
    with _explained(url, "write"):
        _file_system().put_file(str(source), url)


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """UserError when fewer than `needed` bytes, and some to spare, are free where `folder` is or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed + _SPARE_BYTES:
        raise UserError(
            f"{what} needs {needed / 1e9:.2f} GB on local disk, and {there} has {free / 1e9:.2f} GB "
            f"free; free some space, or name a folder on another disk in {CACHE}"
        )


@contextlib.contextmanager
def output(path: str | Path) -> Iterator[str]:
    """Yields the path itself, or for a remote one a local path whose file or folder is copied there on success.

    Raises UserError before anything is made when there is something at the remote path or it is not writable.
    """
    if not is_remote(path):
        yield str(path)
        return
    url = str(path).rstrip("/")
    check_access(url, write=True)
    if sizes(url):
        raise UserError(f"output {url} already exists; remove it or choose another name")
    with _scratch("output") as folder:
        made = folder / url.rpartition("/")[2]  # the same name, whose suffix may mean something
        yield str(made)
        publish(made, url)


@contextlib.contextmanager
def inputs(*paths: str | Path) -> Iterator[tuple[str, ...]]:
    """Yields local paths in place of these: remote files and folders are copied first, the copies removed at the end.

    Raises UserError for what is not there or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(_local(str(path))) for path in paths)


@contextlib.contextmanager
def _local(path: str) -> Iterator[str]:
    if not is_remote(path):
        yield path
        return
    url = path.rstrip("/")
    check_access(url)
    found = sizes(url)
    if not found:
        raise UserError(f"{url} does not exist or is an empty folder")
    with _scratch("input") as folder:
        refuse_full_disk(folder, sum(found.values()), f"a copy of {url}")
        copy = folder / url.rpartition("/")[2]
        for name in found:
            fetch(join(url, name) if name else url, copy / name if name else copy)
        yield str(copy)


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[Path]:
    """A new folder in the cache folder, removed at the end."""
    home = cache_folder(name)
    files.make_folder(home)
    with files.disk_errors(home):
        temporary = tempfile.TemporaryDirectory(dir=home)
    with temporary:
        yield Path(temporary.name)


def publish(made: Path, url: str, last: tuple[str, ...] = ("fingerprint.json",)) -> None:
    """Copies a local file or folder; files named `last` follow when all others are there, for they vouch for them."""
    if made.is_file():
        send(made, url)
        return
    names = sorted(p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file())
    for name in sorted(names, key=lambda name: name in last):
        send(made / name, join(url, name))


def _bucket(url: str) -> str:
    return "gs://" + url.removeprefix("gs://").partition("/")[0]


@functools.cache
def _file_system() -> Any:  # of gcsfs.GCSFileSystem; making it looks for credentials
    try:
        import gcsfs
    except ImportError as error:
        raise UserError("gs:// paths need gcsfs: pip install 'electra_jax[gcs]'") from error
    return gcsfs.GCSFileSystem()


def _answer(url: str, verb: str, ask: Callable[[], T]) -> T:
    """The answer to one question within LIMIT_S seconds; UserError for everything that prevents it."""
    with _explained(url, verb):
        # A daemon thread: one that hangs for good delays neither the error nor the end of the process.
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                answer.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            return answer.result(LIMIT_S)
        except concurrent.futures.TimeoutError:
            raise UserError(
                f"cannot {verb} {url}: no answer within {LIMIT_S:.0f} s. Is there a network, and are "
                "there credentials? Try: gcloud auth application-default login"
            ) from None


@contextlib.contextmanager
def _explained(url: str, verb: str) -> Iterator[None]:
    """Turns what the bucket's library raises into a UserError that says what to do."""
    from google.auth.exceptions import GoogleAuthError  # a dependency of gcsfs

    try:
        yield
    except GoogleAuthError as error:
        raise _no_credentials(url, verb, error) from error
    except (OSError, ValueError) as error:
        # gcsfs.retry.HttpError has a code; what it raises for 403 and 404 has only words.
        code, text = str(getattr(error, "code", "")), str(error)
        if isinstance(error, FileNotFoundError) or code == "404":
            raise UserError(
                f"cannot {verb} {url}: there is no such bucket or file; check the name "
                f"(gcloud storage ls {_bucket(url)})"
            ) from error
        if code == "401" or "Anonymous caller" in text or "Invalid Credentials" in text:
            raise _no_credentials(url, verb, error) from error
        if code == "403" or isinstance(error, PermissionError) or text.startswith("Forbidden"):
            raise UserError(
                f"cannot {verb} {url}: permission denied. Give the account that runs this the role "
                "Storage Object Admin (to read: Storage Object Viewer) on the bucket; machines of "
                "Google Cloud act as their service account"
            ) from error
        why = text.splitlines()[0] if text else repr(error)
        raise UserError(f"cannot {verb} {url}: {why}") from error


def _no_credentials(url: str, verb: str, error: Exception) -> UserError:
    return UserError(
        f"cannot {verb} {url}: no credentials ({str(error).splitlines()[0][:200]}). Log in with: "
        "gcloud auth application-default login"
    )
