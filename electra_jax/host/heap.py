"""Keeps memory that a step has freed for the next step, where the C library would give it back."""

import ctypes
import os
import sys
from typing import Any

# Parameters of mallopt(3). The number of mapped blocks is limited, not the size from which blocks are mapped, of which
# older versions of glibc take no more than 32 MiB.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = 2**31 - 1  # bytes at the heap's end; more goes back to the system


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory in one heap; True where that was done.

    On a CPU a step's temporaries are one block, hundreds of MiB, allocated and freed every step. By default glibc maps
    and unmaps such blocks, and the kernel zeroes every page anew. Call it before JAX makes its threads: a thread keeps
    the heap it began with. Whoever has set MALLOC_ variables has chosen otherwise and is left alone.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    return all([mallopt(name, value) for name, value in settings])  # noqa: C419 - each one is set


def give_back() -> None:
    """Returns to the system what is free now, such as what compiling a program took; later steps keep their own."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """The function; None where the C library is another."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
