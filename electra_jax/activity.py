"""What this process is doing now, in words, for those who wait for it: the other processes of a run."""

import contextlib
from collections.abc import Callable, Iterator

_current = "starting"


def current() -> str:
    """The activity, such as "copying data: 41.0 of 60.0 GB"."""
    return _current


@contextlib.contextmanager
def doing(what: str) -> Iterator[Callable[[str], None]]:
    """Inside, `what` is the activity; yields a function that adds how far it has come."""
    global _current
    before, _current = _current, what

    def progress(how_far: str) -> None:
        global _current
        _current = f"{what}: {how_far}"

    try:
        yield progress
    finally:
        _current = before
