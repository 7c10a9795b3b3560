"""Leaving early, saved: SIGTERM when the machine is taken away, Ctrl-C; heard by one process or agreed between all.

Nothing heavy is imported at the top, so that a signal during the imports is heard, too.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

RESUME = 75  # exit status: saved, start the same command again (EX_TEMPFAIL of sysexits.h)
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT, as shells report it
_SAVING = b"\ninterrupted: saving after the step in hand; Ctrl-C again leaves at once\n"

_heard = threading.Event()
_interrupted = threading.Event()
_listening = threading.Event()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM is remembered instead of ending the process. Only for the main thread."""

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.set()

    _heard.clear()
    _interrupted.clear()
    before = signal.signal(signal.SIGTERM, hear)
    _listening.set()
    try:
        yield
    finally:
        _listening.clear()
        signal.signal(signal.SIGTERM, before)
        _heard.clear()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, where there are steps to lose, the first Ctrl-C does what SIGTERM does; the second ends the process.

    Nothing changes outside of `listening()`, or where Ctrl-C already means something of the caller's.
    """
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        if _interrupted.is_set():
            raise KeyboardInterrupt
        _interrupted.set()
        os.write(2, _SAVING)  # print may have been interrupted itself
        # By signal, because in a run of several processes it is JAX that hears it and makes all agree on a step.
        os.kill(os.getpid(), signal.SIGTERM)

    if not _listening.is_set() or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def told() -> bool:
    """Whether SIGTERM has come to this process."""
    return _heard.is_set()


def status() -> int:
    """The exit status of a process that was told to leave and has saved."""
    return INTERRUPTED if _interrupted.is_set() else RESUME


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
