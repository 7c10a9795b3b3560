"""Leaving early when the machine is taken away: SIGTERM, heard by one process or agreed between all.

Nothing heavy is imported at the top, so that a signal during the imports is heard, too.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

RESUME = 75  # exit status: saved, start the same command again (EX_TEMPFAIL of sysexits.h)

_heard = threading.Event()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM is remembered instead of ending the process. Only for the main thread."""

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.set()

    _heard.clear()
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _heard.clear()


def told() -> bool:
    """Whether SIGTERM has come to this process."""
    return _heard.is_set()


def heard() -> bool:
    """Whether this process, alone in its run, was told to leave; False in a run of several, which must agree."""
    import jax

    return not jax.distributed.is_initialized() and _heard.is_set()


def agreed(step: int) -> bool:
    """Whether the run is to end after `step`: every process asks at every step and gets the same answer.

    With several processes JAX picks the step: the signal may reach them at different ones.
    """
    import jax
    from jax.experimental import multihost_utils

    # jax.distributed takes the signal for itself; without it, the sync point never comes.
    if not jax.distributed.is_initialized():
        return _heard.is_set()
    return multihost_utils.reached_preemption_sync_point(step)
