"""Pretraining from start to end: the loop, and what happens around a step."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.data import order
from electra_jax.data.loader import Loader
from electra_jax.data.source import Source
from electra_jax.model.electra import count_parameters
from electra_jax.objective.protocol import Batch, Sums
from electra_jax.spec import UserError
from electra_jax.train import arrays, imported, mesh, options, program, workdir
from electra_jax.train.checkpoint import Checkpoints
from electra_jax.train.clock import Clock
from electra_jax.train.evaluate import held_out
from electra_jax.train.lock import lock
from electra_jax.train.options import TrainSpec
from electra_jax.train.program import Program
from electra_jax.train.speed import Speed
from electra_jax.train.report import Report, summary
from electra_jax.train.step import State
from electra_jax.train.workdir import Start


def pretrain(config: Mapping[str, Any] | None, folder: str | Path, overrides: Sequence[str] = ()) -> None:
    """Trains the run of a workdir to its last step: a new run from `config`, or the one that is there.

    Without a config, `overrides` ("section.key=value") apply to the config the workdir keeps. Raises UserError, before
    anything is compiled, for options, data or a workdir that do not fit together, and in training when too many steps
    in a row are not finite.
    """
    clock = Clock()
    start = workdir.open_run(config, folder, overrides)
    run = start.run
    with clock.time("init"):
        program.use_compilation_cache()
        devices = mesh.build(run.mesh)
        options.check(run, start.data, devices.size)
        compiled = program.build(run, start.data, devices)
    with lock(folder), clock.time("init"):  # makes the folder, so only now
        with Checkpoints(folder, run.train.keep_last, run.train.keep_every) as checkpoints:
            first, state = initial_state(start, compiled, checkpoints)
            workdir.begin(start)
            with Report(
                folder, first, run.train.steps, run.report.tensorboard, run.report.wandb, start.config
            ) as report:
                _announce(report, start, compiled, first, state)
                if first < run.train.steps:
                    _train(start, compiled, checkpoints, report, clock, first, state)


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
    start: Start,
    compiled: Program,
    checkpoints: Checkpoints,
    report: Report,
    clock: Clock,
    first: int,
    state: State,
) -> None:
    t = start.run.train
    source, valid = start.data.source("train"), start.data.source("valid")
    log = OneStepLate(report, compiled, Speed(start, compiled, clock, first), t)

    def evaluate(done: int, state: State) -> None:
        if len(valid) and not report.has(done, "valid"):
            with clock.time("evaluate"):
                values = held_out(compiled, state["params"], state["extra"], valid, t.batch, t.eval_batches)
                report.write(done, "valid", values)
                report.say(f"step {done} held-out  {summary(values)}")

    if first == 0:
        evaluate(0, state)
    with clock.time("compile"):
        train_step = compiled.compile_train_step()
    loader = Loader(source, rows_of_step(t, source), compiled.batch_sharding, first, t.steps)
    with loader as batches, clock.time("step"), jax.transfer_guard("disallow"):
        for step, batch in _waiting(batches, clock):
            state, sums = train_step(state, batch)
            done = step + 1
            log.push(done, sums)
            if done % t.eval_every == 0 or done == t.steps:
                log.flush()
                evaluate(done, state)
            if done % t.checkpoint_every == 0 or done == t.steps:
                log.flush()
                with clock.time("checkpoint"):
                    report.flush()
                    checkpoints.save(done, state, {"config": start.config, "data": workdir.data_record(start.data)})


def rows_of_step(t: TrainSpec, source: Source) -> Callable[[int], np.ndarray]:
    """The data order of a run: step -> row numbers of its batch, a function of the seed."""
    return lambda step: order.rows(step, t.batch, len(source), t.seed)


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

    def __init__(self, report: Report, compiled: Program, speed: Speed, t: TrainSpec) -> None:
        self._report, self._compiled, self._speed, self._t = report, compiled, speed, t
        self._held: tuple[int, Sums] | None = None

    def push(self, done: int, sums: Sums) -> None:
        """Takes the sums of the step that was just started; logs those of the step before."""
        self.flush()
        self._held = done, sums

    def flush(self) -> None:
        """Logs what is held. Raises UserError after too many steps in a row that were not finite."""
        if self._held is None:
            return
        (done, sums), self._held = self._held, None
        skipped = int(jax.device_get(sums["step/run"]))
        due = done % self._t.log_every == 0 or done == self._t.steps
        if due:
            values = self._values(done, jax.device_get(sums))
            self._report.write(done, "train", values)
        self._report.progress(done, summary(values) if due else "")
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


def _announce(report: Report, start: Start, compiled: Program, first: int, state: State) -> None:
    run, data = start.run, start.data
    parameters = count_parameters(state["params"], run.dimensions(data.vocab_size))
    devices = list(compiled.mesh.devices.flat)
    report.say(
        f"{parameters:,} trainable parameters; {data.rows['train']:,} rows of {data.seq_len} tokens; "
        f"batch {run.train.batch} on {len(devices)} x {devices[0].device_kind}"
    )
    if first == run.train.steps:
        report.say(f"{start.folder} is finished: all {first} steps are done")
    elif first:
        report.say(f"resuming {start.folder} after step {first}")
