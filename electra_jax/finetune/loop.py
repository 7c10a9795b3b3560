"""The training of one run, or of several in one program: steps, dev scores, checkpoints, early stopping."""

import functools
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax import files
from electra_jax.finetune import record, rows
from electra_jax.finetune.forward import predict
from electra_jax.finetune.plan import Plan
from electra_jax.finetune.program import Program, State
from electra_jax.finetune.record import Run
from electra_jax.finetune.rows import Found
from electra_jax.finetune.scores import scoring
from electra_jax.host import preempt, processes
from electra_jax.learn import arrays
from electra_jax.learn import program as programs
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.report import Report, Silence
from electra_jax.learn.stored import FOLDER as CHECKPOINTS
from electra_jax.spec import UserError, to_dict

RUN_AHEAD = 4  # steps that may be dispatched before their loss is there
BEST = "best.safetensors"  # parameters of the best epoch so far


@dataclass
class Progress:
    """What is known of one run while it goes; kept in its checkpoints."""

    epochs: list[dict[str, Any]] = field(default_factory=list)  # step, loss, score, scores
    stopped: bool = False

    @property
    def best(self) -> int:
        """The number of the epoch with the best dev score, the first of equals; -1 before any."""
        return max(range(len(self.epochs)), key=lambda i: self.epochs[i]["score"], default=-1)


@dataclass(frozen=True)
class Group:
    """Runs that train together: in one program where there are several."""

    name: str
    runs: tuple[Run, ...]


def train(
    plan: Plan, group: Group, program: Program, single: Program, folder: Path, before: int = 0
) -> bool:
    """Trains a group to its end and writes parameters, predictions and result of each of its runs.

    `single` is the program of one run, which makes the predictions at the end; for a group of one
    it is `program`. `before` counts the steps of the groups before it, so that processes agree on a step to leave
    after. Goes on at the newest checkpoint. False when it was told to leave and is saved. Raises UserError when too
    many steps in a row are not finite.
    """
    home = record.run_folder(folder, group.name)
    steps, every = plan.schedule.steps, plan.options.train.checkpoint_every
    began = time.monotonic()
    with Checkpoints(home, keep_last=1) as checkpoints:
        done, state, progress, loss = _begin(plan, group, program, checkpoints)
        spent = loss["seconds"]
        with _report(plan, group, home, done) as report, preempt.interruptible():
            if done:
                report.say(f"{group.name}: going on after step {done}")
            session = _Session(plan, group, program, folder, report, progress)
            for step in range(done, steps):
                task, batch = session.batch(step)
                state, told = program.step(task, state, batch)
                session.push(step, told)
                finished = step + 1
                if finished in plan.schedule.evaluations:
                    session.evaluate(finished, state, loss)
                    if all(p.stopped for p in progress):
                        break
                leaving = preempt.agreed(before + finished)
                if leaving or (finished % every == 0 and finished < steps):
                    session.settle(loss)
                    report.flush()
                    loss["seconds"] = spent + time.monotonic() - began
                    kept = [vars(p) for p in progress]
                    checkpoints.save(finished, state, {"progress": kept, "loss": loss})
                if leaving:
                    checkpoints.wait()
                    report.say(f"{group.name}: told to leave: stopped after step {finished}")
                    return False
    seconds = spent + time.monotonic() - began
    for i, run in enumerate(group.runs):
        finish(plan, run, progress[i], single, folder, seconds / len(group.runs))
    if processes.is_first():
        shutil.rmtree(home / CHECKPOINTS, ignore_errors=True)
    return True


def _begin(
    plan: Plan, group: Group, program: Program, checkpoints: Checkpoints
) -> tuple[int, State, list[Progress], dict[str, Any]]:
    """(steps done, state, progress of each run, losses since the last evaluation): of the newest checkpoint or new."""
    restored = checkpoints.restore(program.abstract_state)
    if restored is not None:
        done, state, meta = restored
        return done, state, [Progress(**p) for p in meta["progress"]], meta["loss"]
    seeds, peaks = [r.seed for r in group.runs], [r.peak_lr for r in group.runs]
    state = program.init(plan.start.tree, seeds, peaks)
    loss = {"sum": [0.0] * len(group.runs), "steps": 0, "seconds": 0.0}
    return 0, state, [Progress() for _ in group.runs], loss


def _report(plan: Plan, group: Group, home: Path, done: int) -> Report | Silence:
    """The outputs of a group's training: those that section `report` of the config asks for."""
    if not processes.is_first():
        return Silence()
    asked = plan.options.report
    config = {**to_dict(plan.options), "runs": [to_dict(run) for run in group.runs]}
    return Report(
        home, done, plan.schedule.steps, asked.tensorboard, wandb=asked.wandb, config=config
    )


class _Session:
    """One start of a group."""

    def __init__(
        self,
        plan: Plan,
        group: Group,
        program: Program,
        folder: Path,
        report: Report | Silence,
        progress: list[Progress],
    ) -> None:
        self._plan, self._group, self._program = plan, group, program
        self._folder, self._report, self.progress = folder, report, progress
        self._told: list[tuple[int, Any]] = []
        self._lap = (time.monotonic(), -1)
        self._shown = "training"

    def batch(self, step: int) -> tuple[str, rows.Arrays]:
        """(task, batch) of a step; several runs have their batches one above the other."""
        schedule = self._plan.schedule
        number, at = int(schedule.task_of_step[step]), int(schedule.step_of_task[step])
        data, order = self._plan.data[number], schedule.orders[number]
        length = order.bucket(at)
        made = [data.train.batch(order.rows(at, run.seed), length) for run in self._group.runs]
        return data.task.name, rows.stack(made) if self._program.runs else made[0]

    def push(self, step: int, told: Any) -> None:
        """Takes what a step says; it is read later, so that the device need not wait."""
        if step == 0:
            self._check_first(told)
        self._told.append((step, told))
        if len(self._told) > RUN_AHEAD:
            self._told[-1 - RUN_AHEAD][1]["loss"].block_until_ready()
        t = self._plan.options.train
        if (step + 1) % t.log_every == 0:
            self._log(step + 1, told)
        self._report.progress(step + 1, self._shown)

    def _check_first(self, told: Any) -> None:
        """UserError where the first step of every run is not finite: more steps would change nothing."""
        if np.all(np.asarray(jax.device_get(told["skipped_run"])) > 0):
            start = (
                "fresh parameters" if self._plan.start.params is None else "the encoder of --init"
            )
            raise UserError(
                f"loss or gradient is not finite in the very first step, from {start}, so nothing would be learned. "
                "Likely causes: a damaged encoder (import or copy it again), numbers that overflow "
                f"(--config.model.dtype={self._plan.options.model.dtype}, try float32), or a fault of this device"
            )

    def _log(self, done: int, told: Any) -> None:
        values = jax.device_get(told)
        now, (before, at) = time.monotonic(), self._lap
        self._lap = (now, done)
        speed = {}
        if at >= 0:
            examples = (done - at) * self._plan.options.train.batch * len(self._group.runs)
            speed = {"examples_per_s": examples / (now - before)}
        for i, run in enumerate(self._group.runs):
            mine = {k: float(np.atleast_1d(v)[i]) for k, v in values.items()}
            if mine["skipped_run"] > self._plan.options.train.max_skipped:
                raise UserError(
                    f"run {run.name}: loss or gradient was not finite in {mine['skipped_run']:.0f} "
                    "steps in a row; lower --config.optim.peak_lr, and take another --workdir"
                )
            if not self._report.has(done, self._split(run, "train")):
                self._report.write(done, self._split(run, "train"), mine | speed)
        self._shown = f"loss {np.mean(values['loss']):.4g}"

    def _split(self, run: Run, name: str) -> str:
        return f"{run.name}/{name}" if self._program.runs else name

    def settle(self, loss: dict[str, Any]) -> None:
        """Adds the losses that are waiting to the sums since the last evaluation."""
        values = jax.device_get([told["loss"] for _, told in self._told])
        self._told.clear()
        if values:
            total = np.sum(np.asarray(values, np.float64).reshape(len(values), -1), axis=0)
            loss["sum"] = [float(a + b) for a, b in zip(loss["sum"], total, strict=True)]
            loss["steps"] += len(values)

    def evaluate(self, done: int, state: State, loss: dict[str, Any]) -> None:
        """Scores dev with every run that has not stopped; keeps the parameters that may be wanted."""
        self.settle(loss)
        plan, t = self._plan, self._plan.options.train
        found: list[dict[str, Any]] = [{} for _ in self._group.runs]
        for data in plan.data:
            split = data.splits["dev"]
            said = predict(
                self._program,
                state["params"],
                data.task.name,
                split.rows,
                plan.eval_buckets,
                plan.options.eval.batch,
            )
            for i, outputs in enumerate(said):
                if not self.progress[i].stopped:
                    found[i][data.task.name] = scoring.scores(data, split, outputs)
        for i, run in enumerate(self._group.runs):
            mine = self.progress[i]
            if mine.stopped:
                continue
            score = main_score(plan, found[i])
            mean = loss["sum"][i] / max(1, loss["steps"])
            kept = mean if np.isfinite(mean) else None  # JSON has no name for the others
            mine.epochs.append({"step": done, "loss": kept, "score": score, "scores": found[i]})
            mine.stopped = bool(t.patience) and len(mine.epochs) - 1 - mine.best >= t.patience
            last = done == plan.schedule.steps or mine.stopped
            if (t.select == "best" and mine.best == len(mine.epochs) - 1) or (
                t.select == "last" and last
            ):
                path = record.run_folder(self._folder, run.name) / BEST
                params = _host(state["params"], i, self._program)
                processes.by_first(
                    f"{run.name}: keeping the parameters of step {done}",
                    functools.partial(record.write_params, path, params),
                )
            if not self._report.has(done, self._split(run, "dev")):
                flat = {
                    f"{task}/{name}" if len(found[i]) > 1 else name: value
                    for task, values in found[i].items()
                    for name, value in values.items()
                    if isinstance(value, int | float)
                }
                self._report.write(done, self._split(run, "dev"), {"loss": mean, **flat})
            self._report.say(
                f"{run.name}: epoch {len(mine.epochs)}  loss {mean:.4f}  dev {score:.2f}"
            )
        loss["sum"], loss["steps"] = [0.0] * len(self._group.runs), 0


def _host(params: Any, run: int, program: Program) -> dict[str, np.ndarray]:
    """One run's parameters in host memory, flat."""
    one = jax.tree.map(lambda x: x[run], params) if program.runs else params
    return {name: np.asarray(x) for name, x in arrays.flatten(programs.to_host(one)).items()}


def main_score(plan: Plan, scores: Mapping[str, Mapping[str, Any]]) -> float:
    """The dev score that chooses: the task's main metric, with several tasks their mean."""
    values = [scores[d.task.name][d.task.main_metric] for d in plan.data]
    return float(np.mean(np.nan_to_num(values)))


def finish(
    plan: Plan, run: Run, progress: Progress, single: Program, folder: Path, seconds: float
) -> None:
    """Predicts every split with the parameters a run ends with, and writes its result."""
    from safetensors.numpy import load_file

    home = record.run_folder(folder, run.name)
    flat = load_file(home / BEST)
    params = single.params(arrays.nest(flat))
    kept = progress.best if plan.options.train.select == "best" else len(progress.epochs) - 1
    scores: dict[str, dict[str, Any]] = {}
    for data in plan.data:
        scores[data.task.name] = {}
        for name, split in data.splits.items():
            outputs = predict(
                single,
                params,
                data.task.name,
                split.rows,
                plan.eval_buckets,
                plan.options.eval.batch,
            )[0]
            where = home / "predictions" / (data.task.name if len(plan.data) > 1 else "")
            if processes.is_first():
                scoring.write(data, name, split, outputs, where)
                save_outputs(where / f"{name}.npz", outputs)
            if split.labelled:
                scores[data.task.name][name] = scoring.scores(data, split, outputs)
    kept_step = progress.epochs[kept]
    result = {
        "name": run.name,
        "seed": run.seed,
        "peak_lr": run.peak_lr,
        "score": kept_step["score"],
        "selected_step": kept_step["step"],
        "seconds": seconds,
        "scores": scores,
        "epochs": progress.epochs,
    }
    processes.by_first(f"{run.name}: writing its result", lambda: _write(home, flat, result))


def _write(home: Path, flat: dict[str, np.ndarray], result: dict[str, Any]) -> None:
    """Parameters, then the result; only then goes what a run without a result is trained on from."""
    record.write_params(home / record.PARAMS, flat)
    files.write_json(home / record.RESULT, result)
    (home / BEST).unlink()


def save_outputs(path: Path, outputs: Found) -> None:
    """The head's outputs, for ensembles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **outputs)  # type: ignore[arg-type]
