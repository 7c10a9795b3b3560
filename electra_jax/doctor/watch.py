"""A run watched while it trains: a line when a sign turns bad, once a sign."""

import shlex
from collections.abc import Callable
from pathlib import Path

from electra_jax.doctor import diagnosis
from electra_jax.doctor import run as runs
from electra_jax.doctor.run import Run


class Watch:
    """Looks at what a run has logged; what was bad when it was made has been said by an earlier start.

    It only watches: whatever goes wrong here is said once, and the run goes on.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._run: Run | None = None
        self._said: set[str] = set()
        self._failed = False
        self._guarded(self._begin)

    def look(self) -> list[str]:
        """Lines to say: one for each sign that has turned bad since the last look."""
        return self._guarded(self._new)

    def _begin(self) -> list[str]:
        self._run = runs.opened(self._folder)
        # Before the first line nobody has said anything, and a vocabulary may be bad already.
        if self._run.history.last_step or self._run.history.valid:
            self._said = {one.sign for one in diagnosis.diagnose(self._run).bad}
        return []

    def _new(self) -> list[str]:
        assert self._run is not None
        self._run.history.read_on()
        new = [one for one in diagnosis.diagnose(self._run).bad if one.sign not in self._said]
        self._said |= {one.sign for one in new}
        more = f"electra-jax doctor {shlex.quote(self._name)} says more"
        return [f"doctor: {one.sign}: {one.text}; {more}" for one in new]

    def _guarded(self, work: Callable[[], list[str]]) -> list[str]:
        if self._failed:
            return []
        try:
            return work()
        # Of an observer: nothing that it stumbles over is worth the run.
        except Exception as error:  # noqa: BLE001 (whatever it is)
            self._failed = True
            return [f"doctor: cannot look at this run: {error!r}"]
