"""One run per workdir: a lock that the kernel gives back however the process ends."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from electra_jax import files
from electra_jax.spec import UserError

NAME = ".lock"


@contextlib.contextmanager
def lock(workdir: str | Path) -> Iterator[None]:
    """Holds `workdir`/.lock; UserError naming the other process when somebody holds it already.

    The file stays behind and means nothing without the kernel's lock on it: kill -9 leaves no
    lock. It closes with exec, so programs started from here do not inherit it.
    """
    path = Path(workdir) / NAME
    files.make_folder(workdir)
    with files.disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
            raise UserError(
                f"workdir {workdir} is in use by {holder or 'another process'}; wait until it has "
                "ended, or choose another --workdir"
            ) from error
        with files.disk_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
