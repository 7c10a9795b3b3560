"""Files and folders that appear whole or not at all, and disk errors said in one line."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
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
}


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk under `path` into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK:
            raise UserError(f"cannot write {error.filename or path}: {_DISK[error.errno]}") from error
        raise


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that takes its name on success and vanishes on failure.

    Raises UserError when `path` is a file or a folder with something in it.
    """
    path = Path(path)
    refuse_existing(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            if path.is_dir():
                path.rmdir()
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def refuse_existing(path: str | Path) -> None:
    """Raises UserError when `path` is a file or a folder with something in it."""
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"output {path} already exists; remove it or choose another name")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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
