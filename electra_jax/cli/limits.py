"""Limits of the shell or container (ulimit): refused where native code would abort, else said in one line."""

import errno
import os
import re

from electra_jax import files
from electra_jax.spec import UserError

_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "a file would be larger than the limit allows; raise it (ulimit -f unlimited)",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n 4096)",
    errno.ENFILE: "too many files are open on this machine; close some",
}
_MEMORY = re.compile(
    r"cannot allocate memory|failed to map segment|can't start new thread|bad_alloc|"
    r"cannot allocate write file buffer",
    re.IGNORECASE,
)
# Address space: of JAX and its compiler, and of each thread, of which they start a few for every core.
_ADDRESSES, _ADDRESSES_A_CORE = 2**31, 2**27


def check_memory() -> None:
    """Raises UserError for a limit of address space (ulimit -v) under which JAX would abort without a word of ours."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = _ADDRESSES + _ADDRESSES_A_CORE * (os.cpu_count() or 1)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise UserError(
            f"the limit of address space is {limit / 2**30:.1f} GiB (ulimit -v), too little to start on "
            f"{os.cpu_count()} cores; raise it to {needed // 1024} or more, or lift it (ulimit -v unlimited)"
        )


def explained(error: BaseException | None) -> str | None:
    """What to say of an error that a limit or a full disk led to; None for every other."""
    while error is not None:
        number = files.os_error(error)
        if number in _DISK:
            name = getattr(error, "filename", None)
            return f"{f'{name}: ' if name else ''}{_DISK[number]} and run the command again"
        if isinstance(error, MemoryError) or number == errno.ENOMEM or _MEMORY.search(str(error)):
            return (
                "the memory that this process may use is used up (ulimit -v, or the container's limit); raise the "
                "limit, or use less: fewer --workers, a smaller batch"
            )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
