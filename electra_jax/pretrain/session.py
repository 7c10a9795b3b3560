"""One start of a run: what it writes to, when it saves and evaluates, and the log that is one step late."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from electra_jax.answers import BucketError
from electra_jax.data import baselines as counting
from electra_jax.doctor.watch import Watch
from electra_jax.host import preempt, processes
from electra_jax.host.clock import Clock
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.learner import Sums
from electra_jax.learn.report import Report, Silence, summary
from electra_jax.learn.step import State
from electra_jax.objective.protocol import Metric
from electra_jax.pretrain import (
    announced,
    baselines,
    forecast,
)
from electra_jax.pretrain.budget import Budget, Unlimited
from electra_jax.pretrain.datacheck import DataCheck
from electra_jax.pretrain.evaluate import Abandoned, held_out
from electra_jax.pretrain.options import Phase
from electra_jax.pretrain.program import Program
from electra_jax.pretrain.speed import Speed
from electra_jax.pretrain.start import Start
from electra_jax.spec import UserError
from electra_jax.workdir.away import Home

_LAST_SAVE_S = (5.0, 10.0, 30.0)  # pauses between the tries of a last save that a bucket refuses


@dataclass(frozen=True)
class Session:
    """One start of a run: what every phase of it writes to."""

    start: Start
    data: dict[str, Any]  # their record
    home: Home
    checkpoints: Checkpoints
    report: Report | Silence
    clock: Clock
    data_check: DataCheck
    forecast: forecast.Forecast
    watch: Watch
    counted: dict[str, counting.Counted | None] = field(default_factory=dict)  # by fingerprint

    def save(self, done: int, state: State, last: bool = False) -> None:
        """A checkpoint, after everything logged so far is on disk; unconfirmed while the data are being checked.

        A bucket that refuses does not end the run: a line says so, and the next save tries again. The `last` save is
        tried several times, and then BucketError is raised.
        """
        with self.clock.time("checkpoint"):
            pending = self.data_check.pending()
            self.report.flush()
            meta = {"config": self.start.config, "data": self.data}
            for pause in (*(_LAST_SAVE_S if last else ()), None):
                try:
                    self.home.send()
                    self.checkpoints.save(done, state, meta, pending)
                    if last:
                        self.checkpoints.wait()
                    return
                except BucketError as error:
                    # One of several processes cannot go on alone: the others are in the save.
                    if jax.process_count() > 1 or (last and pause is None):
                        raise
                    then = "training goes on, and the next save tries again"
                    if pause is not None:
                        then = f"it is tried again in {pause:.0f} s"
                    self.report.say(f"step {done} is not saved: {error}; {then}")
                    time.sleep(pause or 0)

    def timer(self, compiled: Program, done: int, state: State) -> Unlimited | Budget:
        """The time that is left to the run."""
        seconds = self.start.run.train.budget_s
        if seconds is None:
            return Unlimited()

        def record(step: int, share: float) -> None:
            if not self.report.has(step, "budget"):  # a resumed run begins with the share it saved
                self.report.write(step, "budget", {"share": share})

        return Budget(seconds, state, done, compiled.share, record)

    def evaluate(
        self, done: int, state: State, phase: Phase, compiled: Program, final: bool
    ) -> None:
        """Held-out metrics, once per step; nothing where the data have no held-out rows."""
        valid = phase.data.source("valid")
        if not len(valid) or processes.same(self.report.has(done, "valid")):
            return
        with self.clock.time("evaluate"):
            t = self.start.run.train
            # The last one is not given up: no later start would make up for it.
            give_up = (lambda: False) if final else preempt.heard
            counted = self._counted(phase)
            try:
                values = held_out(
                    compiled,
                    state["params"],
                    state["carried"],
                    valid,
                    phase.batch,
                    t.eval_batches,
                    give_up,
                    counted,
                )
            except Abandoned:
                return  # the next start makes up for it
            if counted is not None:
                rows = phase.batch * t.eval_batches
                values |= baselines.baselines_of(phase.data, compiled.objective, rows, counted)
            self.report.write(done, "valid", values)
            shown = compiled.objective.shown
            self.report.say(f"step {done} held-out  {_summary(values, shown)}")
            if final and (told := baselines.worse(values, shown)):
                self.report.say(told)
            for told in self.watch.look():
                self.report.say(told)

    def _counted(self, phase: Phase) -> counting.Counted | None:
        """What counting tokens achieves on the held-out rows, for the process that reports."""
        name = phase.data.fingerprint
        if processes.is_first() and name not in self.counted:
            self.counted[name] = counting.of(phase.data)
        return self.counted.get(name)


def _summary(values: Mapping[str, Any], shown: Sequence[Metric]) -> str:
    return summary(values, {metric.name: metric.form for metric in shown})


class OneStepLate:
    """Reads the metrics of step n - 1 while step n runs, so that the device never waits for the log."""

    def __init__(self, session: Session, compiled: Program, speed: Speed) -> None:
        self._start = session.start
        self._report, self._t = session.report, session.start.run.train
        self._compiled, self._speed = compiled, speed
        self._data_check = session.data_check
        self._held: tuple[int, Sums] | None = None
        self._forecast = session.forecast

    def push(self, done: int, sums: Sums) -> None:
        """Takes the sums of the step that was just started; logs those of the step before."""
        self.flush()
        self._held = done, sums

    def flush(self) -> None:
        """Logs what is held. Raises UserError after too many steps in a row that were not finite."""
        self._data_check.look()
        if self._held is None:
            return
        (done, sums), self._held = self._held, None
        skipped = int(jax.device_get(sums["step/run"]))
        due = processes.is_first() and (done % self._t.log_every == 0 or done == self._t.steps)
        if due:
            values = self._values(done, jax.device_get(sums))
            self._report.write(done, "train", values)
        self._report.progress(done, _summary(values, self._compiled.objective.shown) if due else "")
        if skipped and done == 1:
            raise UserError(announced.not_finite_at_first(self._start))
        self._forecast.after(done)
        if skipped > self._t.max_skipped:
            raise UserError(
                f"loss or gradient was not finite in {skipped} steps in a row, the last of them step {done}; "
                "lower --config.optim.peak_lr or lengthen --config.optim.warmup, and start from an earlier checkpoint "
                "or another --workdir"
            )

    def _values(self, done: int, sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
        step = {name.removeprefix("step/"): sums[name] for name in sums if name.startswith("step/")}
        return (
            self._compiled.objective.metrics(sums)
            | {name: float(x) for name, x in step.items() if name.startswith("grad_norm")}
            | {"learning_rate": float(step["learning_rate"])}
            | {"skipped": int(step["total"])}
            | self._speed.since_last(done)
        )
