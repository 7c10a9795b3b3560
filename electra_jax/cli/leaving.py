"""SIGTERM and Ctrl-C: one line, and nothing half-written. Trainings save before they leave (host/preempt.py)."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# For what Python cannot interrupt (a vocabulary that native code trains): after this time it is ended all the same.
GRACE_S = 5.0
_WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
TRAINING = ("pretrain", "finetune")  # they save first, and have handlers of their own
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_NOTHING = "; nothing was written, start the same command again"
_KEPT = {
    "vocab": _NOTHING,
    "prepare": _NOTHING,
    "export": _NOTHING,
    "import": _NOTHING,
    "predict": _NOTHING,
    "quickstart": "; what was made stays in its folder",
}


class Told(KeyboardInterrupt):
    """This process was told to leave by the signal `number`."""

    def __init__(self, number: int, command: str) -> None:
        super().__init__(number)
        self.number, self._command = number, command

    @property
    def status(self) -> int:
        """The exit status, as shells report the signal: 143 or 130."""
        return 128 + self.number

    def __str__(self) -> str:
        return _WORDS[signal.Signals(self.number)] + _KEPT.get(self._command, "")


@contextlib.contextmanager
def heard(command: str) -> Iterator[None]:
    """Inside, the first SIGTERM or Ctrl-C raises Told; the process ends GRACE_S later, whatever it is doing.

    Only in the main thread, where signals arrive; and not for those that train.
    """
    if command in TRAINING or threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[Told] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if not told:  # a second one must not disturb those who tidy up
            told.append(Told(number, command))
            raise told[0]

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()
    watch = threading.Thread(target=_end_late, args=(reading, ended, command), daemon=True)
    # What the caller ignores (nohup) or hears itself stays so.
    before = {n: signal.getsignal(n) for n in _WORDS if signal.getsignal(n) in _DEFAULTS}
    for number in before:
        signal.signal(number, hear)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch.start()
    try:
        yield
    except BaseException:
        if told:
            raise told[0] from None  # whatever became of it on its way through other code
        raise
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        watch.join()


def end_beside_threads(status: int) -> None:
    """Ends the process where threads of JAX may be compiling: Python's end would pull the ground from under them."""
    if "jax" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_late(reading: int, ended: threading.Event, command: str) -> None:
    """Ends the process GRACE_S after the signal unless `ended` comes first."""
    number = b"\0"
    while number and number[0] not in _WORDS:  # end of file when nobody can write any more
        number = os.read(reading, 1)
    os.close(reading)
    if number and not ended.wait(GRACE_S):
        from electra_jax import files  # the command has loaded it, if it writes anything

        files.remove_unfinished()
        told = Told(number[0], command)
        print(told, file=sys.stderr, flush=True)
        os._exit(told.status)
