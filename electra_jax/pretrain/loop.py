"""Pretraining from start to end: the loop, and what happens around a step."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.answers import BucketError
from electra_jax.data import baselines as counting
from electra_jax.data.loader import Loader
from electra_jax.data.verify import Verification
from electra_jax.host import preempt, processes
from electra_jax.host.clock import Clock
from electra_jax.learn import arrays, mesh
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.report import Report, Silence, summary
from electra_jax.objective.protocol import Batch, Sums
from electra_jax.pretrain import (
    announced,
    baselines,
    budget,
    fit,
    forecast,
    options,
    program,
)
from electra_jax.pretrain import (
    start as workdir,
)
from electra_jax.pretrain.budget import Budget, Unlimited
from electra_jax.pretrain.datacheck import DataCheck
from electra_jax.pretrain.evaluate import Abandoned, held_out
from electra_jax.pretrain.options import Phase
from electra_jax.pretrain.program import Program
from electra_jax.pretrain.speed import Speed
from electra_jax.pretrain.start import Start
from electra_jax.pretrain.step import State
from electra_jax.spec import UserError, flat
from electra_jax.workdir import away, imported
from electra_jax.workdir.away import Home

_LAST_SAVE_S = (5.0, 10.0, 30.0)  # pauses between the tries of a last save that a bucket refuses


def pretrain(
    config: Mapping[str, Any] | None,
    folder: str | Path,
    overrides: Sequence[str] = (),
    allow_change: Sequence[str] = (),
) -> bool:
    """Trains the run of a workdir: a new run from `config`, or the one that is there.

    `overrides` ("section.key=value") apply to the config, or else to that which the workdir keeps. True when it came to
    the step where this start ends (train.stop_at or the last), False when SIGTERM, heard inside
    `preempt.listening()`, ended it before, its state saved. Raises UserError, before anything is compiled, for
    options, data or a workdir that do not fit together, and in training when too many steps in a row are not finite.
    """
    with away.opened(folder, whole=not away.holds_checkpoints(folder)) as home:
        return _pretrain(home, config, overrides, allow_change, str(folder))


def _pretrain(
    home: Home,
    config: Mapping[str, Any] | None,
    overrides: Sequence[str],
    allow_change: Sequence[str],
    name: str,
) -> bool:
    clock, folder = Clock(), home.folder
    start = workdir.open_run(config, folder, overrides, allow_change)
    run, phases = start.run, start.run.phases(start.data)
    with clock.time("init"):
        program.use_compilation_cache()
        processes.agree("how it was started", _facts(start))
        chosen = program.choose_mesh(run, start.data)
        devices = mesh.build(
            MeshSpec(**processes.by_first("choosing the mesh", lambda: asdict(chosen)))
        )
        for phase in phases:
            options.check(run, phase, devices.size)
        programs = [program.build(run, phase, devices) for phase in phases]
    used = {phase.data.fingerprint: phase.data for phase in phases}
    # The lock makes the folder, so only now.
    with (
        contextlib.ExitStack() as held,
        clock.time("init"),
        Verification(*used.values()) as verification,
        Checkpoints(folder, run.train.keep_last, run.train.keep_every) as checkpoints,
    ):
        processes.by_first("taking the workdir", lambda: held.enter_context(home.held()))
        data_check = DataCheck(verification, checkpoints)
        processes.by_first("looking at checkpoints", data_check.reject_unknown)
        done, state = initial_state(start, programs[0], checkpoints)
        if done > run.train.steps:
            raise UserError(
                f"train.steps={run.train.steps}, but {folder} has a checkpoint of step {done}; "
                "choose more steps, or another --workdir"
            )
        processes.by_first("writing the record", lambda: _begin(home, start, done))
        with _report(start, done) as report:
            spent = budget.spent(state) >= 1
            announced.begin(report, start, devices, done, state)
            if done < run.train.steps and not spent and (told := forecast.least(run, phases, done)):
                report.say(told)
            record = workdir.data_record(start.data, run)
            ahead = forecast.Forecast(run, phases, report.say)
            session = Session(start, record, home, checkpoints, report, clock, data_check, ahead)
            for phase, compiled in zip(phases, programs, strict=True):
                last = min(phase.last, run.train.ends_at)
                if done < last and not spent:
                    done, state, spent = _train(session, phase, compiled, done, last, state)
                    if done < last and not spent:
                        checkpoints.wait()
                        data_check.look()
                        report.say(
                            f"told to leave: stopped after step {done}; to go on: {announced.command(name)}"
                        )
                        return False
            data_check.finish(report.say)
            if spent:
                report.say(f"train.budget={run.train.budget} is spent: ended after step {done}")
            elif done < run.train.steps:
                report.say(
                    f"train.stop_at={run.train.stop_at} is reached; to go on, raise it or set it to 0: "
                    f"{announced.command(name)} --config.train.stop_at=0"
                )
    return True


def _begin(home: Home, start: Start, done: int) -> None:
    workdir.begin(start, done)
    home.send()


def _facts(start: Start) -> dict[str, Any]:
    """What all processes of a run must have in common; the data's place may differ."""
    config = flat(start.config)
    del config["data.path"]
    versions = {name: v for name, v in workdir.versions().items() if name != "python"}
    return {
        "config": config,
        "data": workdir.data_record(start.data, start.run),
        "versions": versions,
    }


def _report(start: Start, done: int) -> Report | Silence:
    if not processes.is_first():
        return Silence()
    r, t = start.run.report, start.run.train
    total = t.steps if t.budget_s is None else None  # within a budget nobody knows the last step
    return Report(start.folder, done, total, r.tensorboard, r.wandb, start.config)


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
                    state["extra"],
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
                objective = self.start.run.objective
                values |= baselines.baselines_of(phase.data, objective, rows, counted)
            self.report.write(done, "valid", values)
            self.report.say(f"step {done} held-out  {summary(values)}")
            if final and (told := baselines.worse(values)):
                self.report.say(told)

    def _counted(self, phase: Phase) -> counting.Counted | None:
        """What counting tokens achieves on the held-out rows, for the process that reports."""
        name = phase.data.fingerprint
        if processes.is_first() and name not in self.counted:
            self.counted[name] = counting.of(phase.data)
        return self.counted.get(name)


def initial_state(start: Start, compiled: Program, checkpoints: Checkpoints) -> tuple[int, State]:
    """(steps done, state): of the newest good checkpoint, else imported weights, else fresh parameters."""
    restored = checkpoints.restore(compiled.abstract_state)
    if restored is not None:
        step, state, _ = restored
        return step, state
    state = compiled.init()
    found = imported.read(start.folder)
    if found is not None:
        state["params"] = compiled.place_params(arrays.nest(found.params))
    return 0, state


def _train(
    session: Session, phase: Phase, compiled: Program, first: int, last: int, state: State
) -> tuple[int, State, bool]:
    """Steps first .. last - 1, or fewer when the run is told to leave or its time is up: (steps done, state, whether
    the time is up), the state saved.
    """
    t, clock = session.start.run.train, session.clock
    log = OneStepLate(session, compiled, Speed(session.start.run, phase, compiled, clock, first))
    if first % t.eval_every == 0:  # step 0, or what a start before this one had no time for
        session.evaluate(first, state, phase, compiled, final=False)
    with clock.time("compile"):
        train_step = fit.compile_that_fits(session.start.run, phase, compiled)
    rows_of_step = functools.partial(phase.rows, seed=t.seed)
    loader = Loader(
        phase.source(),
        rows_of_step,
        compiled.batch_sharding,
        first,
        last,
        lookahead=phase.lookahead,
    )
    if preempt.agreed(first):
        return first, state, False
    done, timer = first, session.timer(compiled, first, state)
    session.report.unpause()
    with (
        preempt.interruptible(),
        loader as batches,
        clock.time("step"),
        jax.transfer_guard("disallow"),
    ):
        for step, batch in _waiting(batches, clock):
            state, sums = train_step(timer.stamp(state), batch)
            done = step + 1
            log.push(done, sums)
            final = timer.read(done) or done == t.steps
            if done % t.eval_every == 0 or final:
                log.flush()
                session.evaluate(done, state, phase, compiled, final)
            leaving = preempt.agreed(done)
            ends = done == last or final or leaving
            if done % t.checkpoint_every == 0 or ends:
                log.flush()
                session.save(done, timer.stamp(state), last=ends)
            if leaving or timer.over:
                break
        log.flush()
    return done, state, timer.over


def _waiting(batches: Loader, clock: Clock) -> Iterator[tuple[int, Batch]]:
    """The batches, with the time spent waiting for them counted as data."""
    iterator = iter(batches)
    while True:
        with clock.time("data"):
            item = next(iterator, None)
        if item is None:
            return
        yield item


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
        self._report.progress(done, summary(values) if due else "")
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
            | {"grad_norm": float(step["grad_norm"]), "learning_rate": float(step["learning_rate"])}
            | {"skipped": int(step["total"])}
            | self._speed.since_last(done)
        )
