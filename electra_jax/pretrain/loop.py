"""Pretraining from start to end: the loop, and what happens around a step."""

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from electra_jax.data.loader import Loader
from electra_jax.data.verify import Verification
from electra_jax.doctor.watch import Watch
from electra_jax.host import preempt, processes
from electra_jax.host.clock import Clock
from electra_jax.learn import mesh, optim
from electra_jax.learn import program as programs
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.learner import Batch
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.report import Report, Silence
from electra_jax.learn.step import State
from electra_jax.objective import registry
from electra_jax.pretrain import (
    announced,
    budget,
    fit,
    forecast,
    options,
    program,
)
from electra_jax.pretrain import origin as origins
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.datacheck import DataCheck
from electra_jax.pretrain.options import Phase
from electra_jax.pretrain.program import Program
from electra_jax.pretrain.session import OneStepLate, Session
from electra_jax.pretrain.speed import Speed
from electra_jax.pretrain.start import Start
from electra_jax.spec import UserError, flat
from electra_jax.workdir import away, fork, imported
from electra_jax.workdir.away import Home
from electra_jax.workdir.record import versions


def pretrain(
    config: Mapping[str, Any] | None,
    folder: str | Path,
    overrides: Sequence[str] = (),
    allow_change: Sequence[str] = (),
    origin: tuple[str | Path | None, int | None] = (None, None),
) -> bool:
    """Trains the run of a workdir: a new run from `config`, or the one that is there.

    `origin`: another run's workdir, and one of its checkpoints (None: the newest), that a new workdir begins with.
    `overrides` ("section.key=value") apply to the config, or else to that which the workdir keeps. True when it came to
    the step where this start ends (train.stop_at or the last), False when SIGTERM, heard inside
    `preempt.listening()`, ended it before, its state saved. Raises UserError, before anything is compiled, for
    options, data or a workdir that do not fit together, and in training when too many steps in a row are not finite.
    """
    _begin_from(origin, config is not None, folder)
    with away.opened(folder, whole=not away.holds_checkpoints(folder)) as home:
        return _pretrain(home, config, overrides, allow_change, str(folder))


def _begin_from(
    origin: tuple[str | Path | None, int | None], with_config: bool, folder: str | Path
) -> None:
    """Copies the run that a new one begins with, where there is one."""
    source, step = origin
    if source is None:
        if step is not None:
            raise UserError(f"--step {step} is that of the run that --from names; there is none")
        return
    if with_config:
        raise UserError("--from goes on with the config of that run; leave --config out")
    told = processes.by_first("copying the run", lambda: fork.fork(source, folder, step))
    if told and processes.is_first():
        print(told, file=sys.stderr)


def _pretrain(
    home: Home,
    config: Mapping[str, Any] | None,
    overrides: Sequence[str],
    allow_change: Sequence[str],
    name: str,
) -> bool:
    clock, folder = Clock(), home.folder
    start = starts.open_run(config, folder, overrides, allow_change)
    run, phases = start.run, start.run.phases(start.data)
    with clock.time("init"):
        programs.use_compilation_cache()
        processes.agree("how it was started", _facts(start))
        chosen = program.choose_mesh(run, start.data)
        devices = mesh.build(
            MeshSpec(**processes.by_first("choosing the mesh", lambda: asdict(chosen)))
        )
        for phase in phases:
            options.check(run, phase, devices.size)
        built = [program.build(run, phase, devices) for phase in phases]
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
        done, state = initial_state(start, built[0], checkpoints)
        if done > run.train.steps:
            raise UserError(
                f"train.steps={run.train.steps}, but {folder} has a checkpoint of step {done}; "
                "choose more steps, or another --workdir"
            )
        processes.by_first("writing the record", lambda: _begin(home, start, done))
        with _report(start, done) as report:
            announced.begin(report, start, devices, done, state)
            record = starts.data_record(start.data, run)
            ahead = forecast.Forecast(run, phases, report.say)
            watch = Watch(home.folder, name)
            session = Session(
                start, record, home, checkpoints, report, clock, data_check, ahead, watch
            )
            return _train_phases(session, list(zip(phases, built, strict=True)), done, state, name)


def _train_phases(
    session: Session,
    phases: Sequence[tuple[Phase, Program]],
    done: int,
    state: State,
    name: str,
) -> bool:
    """The phases from step `done` on, one after the other; False when it was told to leave."""
    run, report = session.start.run, session.report
    spent = budget.spent(state) >= 1
    if done < run.train.steps and not spent:
        told = forecast.least(run, [phase for phase, _ in phases], done)
        if told:
            report.say(told)
    for phase, compiled in phases:
        last = min(phase.last, run.train.ends_at)
        if done < last and not spent:
            done, state, spent = _train(session, phase, compiled, done, last, state)
            if done < last and not spent:
                session.checkpoints.wait()
                session.data_check.look()
                report.say(
                    f"told to leave: stopped after step {done}; to go on: {announced.command(name)}"
                )
                return False
    session.data_check.finish(report.say)
    if spent:
        report.say(f"train.budget={run.train.budget} is spent: ended after step {done}")
    elif done < run.train.steps:
        report.say(
            f"train.stop_at={run.train.stop_at} is reached; to go on, raise it or set it to 0: "
            f"{announced.command(name)} --config.train.stop_at=0"
        )
    return True


def _begin(home: Home, start: Start, done: int) -> None:
    starts.begin(start, done)
    home.send()


def _facts(start: Start) -> dict[str, Any]:
    """What all processes of a run must have in common; the data's place may differ."""
    config = flat(start.config)
    del config["data.path"]
    return {
        "config": config,
        "objective": registry.digest(start.run.objective["name"]),
        "data": starts.data_record(start.data, start.run),
        "versions": {name: v for name, v in versions().items() if name != "python"},
    }


def _report(start: Start, done: int) -> Report | Silence:
    if not processes.is_first():
        return Silence()
    r, t = start.run.report, start.run.train
    total = t.steps if t.budget_s is None else None  # within a budget nobody knows the last step
    return Report(start.folder, done, total, r.tensorboard, r.wandb, start.config)


def initial_state(start: Start, compiled: Program, checkpoints: Checkpoints) -> tuple[int, State]:
    """(steps done, state): of the newest good checkpoint, else imported weights, else fresh parameters.

    An import that brought its run's moments and step goes on with that run.
    """
    restored = checkpoints.restore(compiled.abstract_state)
    if restored is not None:
        step, state, _ = restored
        return step, state
    state = compiled.init()
    found, expected = imported.read(start.folder), compiled.abstract_state["params"]
    if found is None:
        begun = origins.begin(compiled.objective, expected)
        if begun:
            state["params"] = {**state["params"], **begun}
            state["carried"] = compiled.carried(state["params"])
        return 0, state
    state["params"] = compiled.place_params(imported.as_tree(found, expected))
    state["carried"] = compiled.carried(state["params"])
    if found.moments is None:
        return 0, state
    done = compiled.scalar(found.step)
    trees = imported.moments_as_trees(found, expected)
    moments = {name: compiled.place_params(tree) for name, tree in trees.items()}
    opt_state = optim.with_moments(state["opt_state"], **moments, count=done)
    return found.step, state | {"opt_state": opt_state, "step": done}


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
