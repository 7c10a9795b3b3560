"""Files and folders that appear whole or not at all, and disk errors said in one line."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError

_DISK = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EPERM: "permission denied; choose another place or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EFBIG: "the file is larger than this disk or its limits allow; choose another place",
    errno.EIO: "the device reported an input/output error; check the disk",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n 4096) and run the command again",
    errno.ENFILE: "too many files are open on this machine; close some and run the command again",
}
# What native code says of an error of the operating system, of which it keeps the number in its text only.
_NUMBERS = re.compile(r"os_error_code='(\d+)'|OS error (\d+)|\(os error (\d+)\)")
# A sibling under which something is written: .NAME.partial-PROCESS-MACHINE-RANDOM
_PARTIAL = re.compile(r"\.(.+)\.partial-(\d+)-([0-9a-f]{8})-[0-9a-f]{6}")
# Those of this process that have neither taken their name nor been removed.
_unfinished: set[Path] = set()


def scheme(path: str | Path) -> str:
    """What stands before "://" in a path ("gs", "s3"); empty for a path of this machine."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(path))
    return found[1].lower() if found else ""


def refuse_url(path: str | Path) -> None:
    """UserError for an address (s3://b/x), which would otherwise become a local folder named `s3:`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # a Path has lost one of the two slashes
        raise UserError(
            f"{path} is an address, and here a local path is needed; write there and copy it afterwards"
        )


def user_cache() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME, ~/.cache, or a private folder among temporary files.

    The last is for a user without a home, as containers have. Raises UserError when it belongs to somebody else.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base)
    with contextlib.suppress(RuntimeError):  # neither HOME nor an entry in the list of users
        return Path.home() / ".cache"
    path = Path(tempfile.gettempdir()) / f"electra_jax-{os.getuid()}"
    with disk_errors(path):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise UserError(
            f"there is no home folder to keep copies in, and {path} belongs to somebody else; "
            "name a folder of yours in XDG_CACHE_HOME"
        )
    return path


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns a full, read-only, forbidden or broken disk under `path` into a UserError, whichever library met it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (number := os_error(error)) in _DISK:
            where = getattr(error, "filename", None) or path
            raise UserError(f"cannot write {where}: {_DISK[number]}") from error
        raise


def os_error(error: BaseException) -> int | None:
    """The operating system's number of an error, which native libraries (Rust, tensorstore) have in its text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = _NUMBERS.search(str(error))
    return int(next(filter(None, told.groups()))) if told else None


@functools.cache
def _machine() -> str:
    """Tells apart the machines, containers and starts of a machine whose process numbers say nothing of each other."""
    told = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        told.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _sibling(target: Path) -> Path:
    """The hidden name under which `target` is written; what dead processes left under such names is removed."""
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            found = _PARTIAL.fullmatch(path.name)
            if found and found[1] == target.name and _is_abandoned(int(found[2]), found[3]):
                _remove(path)
    return target.with_name(
        f".{target.name}.partial-{os.getpid()}-{_machine()}-{secrets.token_hex(3)}"
    )


def _is_abandoned(process: int, machine: str) -> bool:
    """Whether the process that wrote is dead; False where that cannot be known."""
    if machine != _machine():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's
        return False
    return False


def remove_unfinished() -> None:
    """Removes what this process is writing and has not named yet: for an end that cannot wait for the writers."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to say
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its name on success, vanishes on failure.

    Raises UserError when `path` is a file, the current folder or a folder with something in it.
    """
    refuse_existing(path)
    target = Path(path).resolve()  # the empty folder that a link points to is the one to replace
    with disk_errors(path):
        with _no_place(path):
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(target)
        _unfinished.add(temporary)
        try:
            with _no_place(path):
                temporary.mkdir()
            yield temporary
            _sync(temporary)
            try:
                temporary.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise _exists(path) from error  # another process was faster
                raise
            _sync_folder(target.parent)
        except BaseException:
            _remove(temporary)
            raise
        finally:
            _unfinished.discard(temporary)


def make_folder(path: str | Path) -> None:
    """Makes a folder that may be there already, and those above it; UserError where none can be."""
    refuse_url(path)
    if Path(path).is_file():
        raise UserError(f"{path} is a file, not a folder; choose another place")
    with disk_errors(path), _no_place(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def refuse_existing(path: str | Path) -> None:
    """Raises UserError when a new output cannot take the name `path`."""
    refuse_url(path)
    path = Path(path)
    with disk_errors(path):
        if path.resolve() == Path.cwd():
            raise UserError(f"output {path} is the current folder; name a new folder inside it")
        if path.is_dir() and not any(path.iterdir()):
            return
        if path.exists() or path.is_symlink():
            raise _exists(path)
        for parent in path.parents:
            if parent.exists():
                if not parent.is_dir():
                    raise UserError(f"output {path}: {parent} is a file; choose another place")
                with _no_place(path):  # rather now than when the work is done
                    os.rmdir(tempfile.mkdtemp(prefix=".electra_jax-can-write-", dir=parent))
                break


@contextlib.contextmanager
def _no_place(path: str | Path) -> Iterator[None]:
    """A UserError for a folder where none can be made (as in /proc), whatever the system says of it."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK:
            raise  # what `disk_errors` says is better
        raise UserError(
            f"output {path}: no folder can be made there ({error.strerror}); choose another place"
        ) from error


def _exists(path: str | Path) -> UserError:
    return UserError(f"output {path} already exists; remove it or choose another name")


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling, empty, that takes the name `path` on success and vanishes on failure.

    A reader, or a crash, sees the old content or the new, never a part. Whatever writes the sibling, even by replacing
    it, the file has the permissions that the umask gives.
    """
    refuse_url(path)
    path = Path(path)
    temporary = _sibling(path)
    with disk_errors(path):
        _unfinished.add(temporary)
        try:
            with open(temporary, "xb") as f:
                mode = stat.S_IMODE(os.fstat(f.fileno()).st_mode)
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            _remove(temporary)
            _unfinished.discard(temporary)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """`write_bytes` of indented JSON with a final newline; refuses NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def identity(path: str | Path) -> tuple[int, ...]:
    """What changes when a file is exchanged or written to; () where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _sync(folder: Path) -> None:
    """Makes the folder's content durable: without it a power cut after the rename leaves holes."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as f:
                os.fsync(f.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    """Makes renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
