"""Where a run's wall time goes: named counters, goodput."""

import contextlib
import time
from collections.abc import Callable, Iterator

NAMES = ("init", "compile", "data", "step", "checkpoint", "evaluate")


class Clock:
    """Seconds by counter, from the moment it is made; a counter inside another pauses the outer.

    So `with clock.time("step"):` around the whole loop and the other counters inside it add up to the
    wall time. Monotonic: setting the machine's clock changes nothing.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = self._changed = now()
        self._running: list[str] = []
        self._seconds = dict.fromkeys(NAMES, 0.0)
        self._lap = (self._start, dict(self._seconds))

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Counts the block under `name`, one of NAMES."""
        if name not in self._seconds:
            raise ValueError(f"{name!r} is not a counter; known: {', '.join(NAMES)}")
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def _settle(self) -> None:
        now = self._now()
        if self._running:
            self._seconds[self._running[-1]] += now - self._changed
        self._changed = now

    def seconds(self) -> dict[str, float]:
        """Seconds by counter so far, and `wall`."""
        self._settle()
        return {**self._seconds, "wall": self._changed - self._start}

    def lap(self) -> dict[str, float]:
        """Seconds by counter and `wall` since the last lap; starts the next."""
        now = self.seconds()
        start, before = self._lap
        wall = self._start + now.pop("wall")
        self._lap = (wall, now)
        return {name: now[name] - before[name] for name in NAMES} | {"wall": wall - start}

    def goodput(self) -> float:
        """Share of the wall time since the start in which steps ran."""
        seconds = self.seconds()
        return seconds["step"] / seconds["wall"] if seconds["wall"] > 0 else 0.0
