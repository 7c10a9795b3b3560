"""What a run will take, said before it has taken it: at least, by the speed of a matrix product; then as measured."""

import time
from collections.abc import Callable, Sequence

from electra_jax.learn import hardware
from electra_jax.pretrain.options import Phase, RunSpec
from electra_jax.pretrain.speed import useful_flops
from electra_jax.quantities import spoken_time

LONG_S = 7 * 86400
_MEASURED_S, _MEASURED_STEPS = 10.0, 2  # at least both
_WORTH_SAYING_S = 60


def flops_left(run: RunSpec, phases: Sequence[Phase], done: int) -> float:
    """Useful FLOPs of the steps after step `done`."""
    return sum(
        max(0, phase.last - max(done, phase.first)) * useful_flops(run, phase) for phase in phases
    )


def least(run: RunSpec, phases: Sequence[Phase], done: int) -> str | None:
    """What is left as if all of it were products as fast as a large one here; None where that is no time at all."""
    seconds = flops_left(run, phases, done) / hardware.matmul_rate(run.model.dtype)
    left = f"{run.train.steps - done:,} steps"
    if seconds < _WORTH_SAYING_S:
        return None
    if run.train.budget:
        return f"train.budget={run.train.budget}; all {left} would take at least {spoken_time(seconds)}"
    return (
        f"{left} take at least {spoken_time(seconds)}, by their matrix products at the speed "
        f"measured here{_too_long(seconds)}"
    )


class Forecast:
    """Says once, when some steps have been timed, what those that are left will take."""

    def __init__(
        self,
        run: RunSpec,
        phases: Sequence[Phase],
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._phases, self._say, self._now = run, phases, say, now
        self._began: tuple[float, int] | None = None
        self._said = False

    def after(self, done: int) -> None:
        """Step `done` has ended."""
        if self._said:
            return
        now = self._now()
        if self._began is None:  # the first step of a start is not like the others
            self._began = now, done
            return
        passed, steps = now - self._began[0], done - self._began[1]
        if passed < _MEASURED_S or steps < _MEASURED_STEPS:
            return
        self._said = True
        timed = flops_left(self._run, self._phases, self._began[1])
        left = flops_left(self._run, self._phases, done)
        if timed <= left:  # of another phase
            return
        seconds = passed / (timed - left) * left
        if seconds < _WORTH_SAYING_S:
            return
        train = self._run.train
        limit = train.budget_s
        if limit and limit < seconds:
            self._say(
                f"train.budget={train.budget} ends the run early: all {train.steps - done:,} steps that are left "
                f"would take about {spoken_time(seconds)} at this speed, {passed / steps:.3g} s a step"
            )
            return
        self._say(
            f"about {spoken_time(seconds)} at this speed, {passed / steps:.3g} s a step: "
            f"{train.steps - done:,} steps are left{'' if limit else _too_long(seconds)}"
        )


def _too_long(seconds: float) -> str:
    if seconds <= LONG_S:
        return ""
    return (
        ". That is over a week: --config mini is a model for a machine like this, --config.train.steps=N takes fewer "
        "steps, --config.train.budget=24h ends learning in time"
    )
