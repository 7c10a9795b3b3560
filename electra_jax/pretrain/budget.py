"""Training within a budget of time: the schedule follows the share of the time that is over.

The learning rate has decayed when the time is up, however many steps that was (Izsak et al., 2021, "How to Train BERT
with an Academic Budget", arXiv:2104.07705). The share is part of the state, so that a resumed run goes on with the
time that its checkpoint had spent; and a line of metrics.jsonl (split "budget") says after which step which share
counted, which is all that is needed to run the same steps again.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from electra_jax.learn.step import SHARE, State

READINGS = 1000  # of the clock in a whole budget, where steps are short


class Unlimited:
    """The budget of a run that has none."""

    over = False

    def stamp(self, state: State) -> State:
        """The state as it is."""
        return state

    def read(self, done: int) -> bool:
        """False: there is time."""
        return False


class Budget:
    """The time of one start of a run: what is written into the state, and when it is up.

    `place` makes a global float32 scalar of a number, `record` takes (steps done before a share counts, share).
    """

    def __init__(
        self,
        seconds: float,
        state: State,
        done: int,
        place: Callable[[float], jax.Array],
        record: Callable[[int, float], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._place, self._record, self._now = seconds, place, record, now
        self._before = self._share = spent(state)
        self._began, self._first, self._next = now(), done, done + 1
        record(done, self._share)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._share >= 1

    def stamp(self, state: State) -> State:
        """The state with the share that counts now."""
        return state | {SHARE: self._place(self._share)}

    def read(self, done: int) -> bool:
        """Whether the time is up after step `done`; looks at the clock of process 0 a thousand times in all, or as
        often as there are steps.
        """
        if done >= self._next:
            passed = self._now() - self._began
            share = min(1.0, self._before + passed / self._seconds)
            left = (1 - share) * self._seconds
            a_step = passed / (done - self._first)
            wait = min(self._seconds / READINGS, left) / a_step if a_step else 1
            self._share, self._next = _agreed(share, done + max(1, int(wait)))
            self._record(done, self._share)
        return self.over


def spent(state: State) -> float:
    """The share of its budget that a run has spent; 0 without a budget."""
    with jax.transfer_guard("allow"):
        return float(np.asarray(state[SHARE])) if SHARE in state else 0.0


def _agreed(share: float, following: int) -> tuple[float, int]:
    """What process 0 read, as a float32 holds it."""
    found: Any = np.array([share, following], np.float64)
    if jax.process_count() > 1:
        with jax.transfer_guard("allow"):
            # Two halves each, because what is exchanged is 32 bits wide.
            halves = multihost_utils.broadcast_one_to_all(found.view(np.uint32))
        found = np.asarray(halves).view(np.float64)
    return float(np.float32(found[0])), int(found[1])
