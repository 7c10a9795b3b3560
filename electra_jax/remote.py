"""Folders on a bucket (gs://, s3://): looked at before anything relies on them, copied to local disk and back."""

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from electra_jax import files, schemes
from electra_jax.answers import Progress, bucket_of, explained, inner, scheme_of, waited
from electra_jax.spec import UserError

# How long a bucket may take to answer the first question. Without credentials some readers wait for
# minutes and say nothing.
LIMIT_S = 20.0
# How long a copy may go without a byte: a bucket that has stalled would hold the run for ever.
STALL_S = 120.0
CACHE = "ELECTRA_JAX_CACHE"
_BLOCK = 2**22
_AT_ONCE = 8  # files that are copied at the same time
_PROBE = ".electra_jax-can-write"
# Left free on a disk that data are copied to: logs and temporary files need room, too.
SPARE_BYTES = 2**28

T = TypeVar("T")


def is_remote(path: str | Path) -> bool:
    """Whether a path lies on a bucket. UserError for a kind of address that is not supported."""
    return schemes.of(path) is not None


def writes_arrays(url: str | Path) -> bool:
    """Whether Orbax writes checkpoints to this kind of bucket itself."""
    return scheme_of(url).writes_arrays


def arrays(url: str | Path) -> dict[str, Any]:
    """The folder of a URL as tensorstore's key-value store."""
    bucket, _, inside = inner(url).partition("/")
    return scheme_of(url).arrays(bucket, inside.rstrip("/") + "/")


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
        bucket = _file_system(url)
        # FileNotFoundError of the folder; that of the bucket comes below.
        with contextlib.suppress(FileNotFoundError):
            bucket.ls(url, refresh=True)
            return
        bucket.ls(bucket_of(url), refresh=True)

    def probe() -> None:
        bucket = _file_system(url)
        bucket.pipe_file(join(url, _PROBE), b"")
        bucket.rm_file(join(url, _PROBE))

    _answer(url, "list", ask, passing=False)
    if write:
        _answer(url, "write to", probe, passing=False)


def sizes(url: str) -> dict[str, int]:
    """Bytes of every file under a remote folder by its relative path; of a file under ""; empty where nothing is."""

    def ask() -> dict[str, int]:
        bucket = _file_system(url)
        bucket.invalidate_cache()
        return {name: int(row["size"]) for name, row in _rows(bucket.find(url, detail=True), url)}

    return _answer(url, "list", ask)


def _rows(found: Mapping[str, Any], url: str) -> Iterator[tuple[str, Any]]:
    """(relative path, what the bucket says of it) of the files in a listing."""
    for name, row in found.items():
        # An empty object whose name ends in a slash is how some tools show an empty folder.
        if row["size"] or not name.endswith("/"):
            yield name.removeprefix(inner(url)).lstrip("/"), row


def versions(url: str) -> dict[str, str]:
    """What changes when a file is written again, of every file under a remote folder by its relative path."""

    def ask() -> dict[str, str]:
        bucket = _file_system(url)
        bucket.invalidate_cache()
        return {name: _version(row) for name, row in _rows(bucket.find(url, detail=True), url)}

    return _answer(url, "list", ask)


def _version(row: Mapping[str, Any]) -> str:
    marks = ("etag", "ETag", "generation", "md5Hash", "updated", "LastModified", "size")
    return " ".join(str(row.get(mark)) for mark in marks)


def matches(pattern: str) -> dict[str, int | None]:
    """The URLs that a glob (*, **, ?, [...]) names, each with its bytes; None for a folder."""

    def ask() -> dict[str, int | None]:
        bucket = _file_system(pattern)
        bucket.invalidate_cache()
        found = bucket.glob(pattern.rstrip("/"), detail=True)
        return {
            scheme_of(pattern).prefix + name.rstrip("/"): None
            if row["type"] == "directory"
            else int(row["size"])
            for name, row in found.items()
        }

    with explained(pattern, "list"):
        return waited(pattern, "list", ask, STALL_S)


def read(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """The content of a small file, or its bytes [start, stop); UserError when it cannot be read."""
    return _answer(url, "read", lambda: _file_system(url).cat_file(url, start=start, end=stop))


def opened(url: str) -> BinaryIO:
    """A file for reading, from any place in it; a read that gets no answer for STALL_S seconds is a UserError."""
    with explained(url, "read"):
        stored = waited(
            url, "read", lambda: _file_system(url).open(url, block_size=_BLOCK), STALL_S
        )
    return io.BufferedReader(_Stored(url, stored), _BLOCK)


class _Stored(io.RawIOBase):
    """A file on a bucket whose faults are said in one line."""

    def __init__(self, url: str, stored: Any) -> None:
        self._url, self._file = url, stored

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with explained(self._url, "read"):
            found = waited(self._url, "read", lambda: self._file.read(len(buffer)), STALL_S)
        buffer[: len(found)] = found
        return len(found)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def described(urls: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Bytes of each of these files, and what changes when it is written again; those that are not there are left out.

    Folders are listed, as they are now: a question for each file would take hours where there are a million.
    """
    wanted = set(urls)
    found: dict[str, tuple[int, str]] = {}
    for folder in sorted({url.rpartition("/")[0] for url in wanted}):
        rows = _answer(folder, "list", functools.partial(_listing, folder))
        for row in rows:
            url = scheme_of(folder).prefix + row["name"].rstrip("/")
            if url in wanted and row["type"] == "file":
                found[url] = int(row["size"]), _version(row)
    return found


def _listing(folder: str) -> list[dict[str, Any]]:
    return _file_system(folder).ls(folder, detail=True, refresh=True)


def write(url: str, data: bytes) -> None:
    """Writes a small file: on a bucket an object is there whole or not at all."""
    _answer(url, "write", lambda: _file_system(url).pipe_file(url, data))


def delete(url: str) -> None:
    """Removes a file that may be gone already."""

    def ask() -> None:
        with contextlib.suppress(FileNotFoundError):
            _file_system(url).rm_file(url)

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
            explained(url, "read"),
            waited(url, "read", lambda: _file_system(url).open(url), STALL_S) as f,
        ):
            while block := waited(url, "read", lambda: f.read(_BLOCK), STALL_S):
                out.write(block)
                digest.update(block)
                told(len(block))
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(
                f"{url} has the sha256 {digest.hexdigest()}, expected {sha256}: its content was "
                "damaged; copy it to the bucket again"
            )


def send(source: Path, url: str) -> None:
    """Copies a local file to a bucket: the object is there whole or not at all."""
    progress = Progress()

    def put() -> None:
        _file_system(url).put_file(str(source), url, callback=progress.callback())

    with explained(url, "write"):
        waited(url, "write", put, STALL_S, progress)


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """UserError when fewer than `needed` bytes, and some to spare, are free where `folder` is or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed + SPARE_BYTES:
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
    with scratch("output") as folder:
        made = folder / url.rpartition("/")[2]  # the same name, whose suffix may mean something
        yield str(made)
        publish(made, url)


@contextlib.contextmanager
def inputs(*paths: str | Path) -> Iterator[tuple[str, ...]]:
    """Yields local paths in place of these: remote files and folders are copied first, the copies removed at the end.

    Raises UserError for what is not there or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        local = tuple(stack.enter_context(_local(str(path))) for path in paths)
        with named(dict(zip(local, map(str, paths), strict=True))):
            yield local


@contextlib.contextmanager
def named(names: Mapping[str, str]) -> Iterator[None]:
    """Inside, a UserError that names a local copy names the URL it was copied from."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for copy, url in names.items():
            if is_remote(url):
                text = text.replace(copy, url.rstrip("/"))
        error.args = (text,)
        raise


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
    with scratch("input") as folder:
        copy = folder / url.rpartition("/")[2]
        here = {join(url, name) if name else url: copy / name for name in found}
        fetch_all(here, sum(found.values()), url)
        yield str(copy)


def fetch_all(places: Mapping[str, Path], size: int, what: str) -> None:
    """Copies files (URL -> place on local disk), several at once, `size` bytes in all; UserError as of `fetch`."""
    from tqdm import tqdm

    if outside := [url for url in places if ".." in url.split("/")]:
        raise UserError(f"{outside[0]}: a name that leads out of a folder; remove it")
    for folder in {place.parent for place in places.values()}:
        refuse_full_disk(folder, size, f"a copy of {what}")
        break
    with (
        tqdm(total=size, unit="B", unit_scale=True, desc=f"copy {what}", disable=None) as bar,
        concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        copies = [pool.submit(fetch, url, at, told=bar.update) for url, at in places.items()]
        try:
            for copy in copies:
                copy.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
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


def _file_system(url: str) -> Any:
    return scheme_of(url).file_system()


def _answer(url: str, verb: str, ask: Callable[[], T], passing: bool = True) -> T:
    """The answer to one question within LIMIT_S seconds; BucketError for everything that prevents it."""
    with explained(url, verb):
        return waited(url, verb, ask, LIMIT_S, passing=passing)
