"""Files where they are: on this machine or on a bucket, opened, measured and told apart alike."""

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

from electra_jax import files, remote
from electra_jax.spec import UserError

# What stands for the bytes of a file: changes when it is exchanged or written to.
Identity = tuple[Any, ...]


def opened(path: str) -> BinaryIO:
    """A file for reading bytes, from any place in it."""
    return remote.opened(path) if remote.is_remote(path) else open(path, "rb")


def sizes(paths: Iterable[str]) -> dict[str, int]:
    """The bytes of each file. Raises UserError for one on a bucket that is not there, OSError for one here."""
    return {path: size for path, (size, _) in _described(paths).items()}


def identities(paths: Iterable[str]) -> dict[str, Identity]:
    """What stands for the bytes of each file; () where there is none."""
    return {path: identity for path, (_, identity) in _described(paths, missing=True).items()}


def _described(paths: Iterable[str], missing: bool = False) -> dict[str, tuple[int, Identity]]:
    paths = list(paths)
    there = remote.described(filter(remote.is_remote, paths))
    found: dict[str, tuple[int, Identity]] = {}
    for path in paths:
        if not remote.is_remote(path):
            size = 0 if missing else os.path.getsize(path)
            found[path] = size, files.identity(path)
        elif path in there:
            found[path] = there[path][0], (there[path][1],)
        elif missing:
            found[path] = 0, ()
        else:
            raise UserError(f"input {path} does not exist")
    return found
