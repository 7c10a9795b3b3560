"""`electra-jax finetune`: from a config to the results of every run, resumed where it was stopped."""

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from electra_jax import files, remote
from electra_jax.finetune import groups, loop, own, plan, record
from electra_jax.finetune.options import TYPES, Options, complete, options
from electra_jax.finetune.plan import Plan
from electra_jax.finetune.program import Notice, Program
from electra_jax.finetune.record import Record
from electra_jax.finetune.scores import majority, results
from electra_jax.host import processes
from electra_jax.learn import mesh as meshes
from electra_jax.learn import program as programs
from electra_jax.spec import UserError, apply_override, flat, to_dict
from electra_jax.workdir import away
from electra_jax.workdir.away import Home
from electra_jax.workdir.record import RECORD as RUN
from electra_jax.workdir.record import versions

# What may differ between two starts: it changes where it runs and what is logged, not what is learned.
FREE = (
    "train.log_every",
    "train.accumulation",
    "train.checkpoint_every",
    "eval.",
    "mesh.",
    "report.",
    "data.dir",
    "data.train",
)


def finetune(
    config: Mapping[str, Any] | None, folder: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Trains the runs of a workdir to their end and returns the content of results.json.

    None where SIGTERM, heard inside `preempt.listening()`, ended it before, its state saved.

    A new command from `config`; or, without one, that of the workdir, with `overrides`. Raises
    UserError before anything is trained for options, data or an encoder that do not fit. On a bucket what the runs
    write is sent while they go on.
    """
    if remote.is_remote(folder) and jax.process_count() > 1:
        raise UserError(
            f"--workdir {folder} is on a bucket: fine-tuning in several processes needs a folder on a file system "
            "that they share; copy it to the bucket afterwards, or fine-tune in one process"
        )
    with away.opened(folder, whole=True) as home:
        return _finetune(home, config, overrides, str(folder))


def _finetune(
    home: Home, config: Mapping[str, Any] | None, overrides: Sequence[str], name: str
) -> dict[str, Any] | None:
    folder = home.folder
    found = _shared("opening the workdir", lambda: _opened(folder, config))
    if config is not None:
        asked = complete(_plain(config))
    else:
        assert found is not None  # one of the two is there
        asked = _overridden(found.config, overrides)
    made = options(asked)
    if found is not None:
        _same(folder, found.config, asked)
        made = _as_begun(made, found, folder)
    if not made.init:
        raise UserError("no encoder: give --init WORKDIR, a Hugging Face folder, or random")
    work = plan.make(made)
    devices = meshes.build(made.mesh)
    _divides(made, devices.size)
    if found is not None and found.fingerprint != _fingerprints(work):
        raise UserError(
            f"the data are not those that {folder} was started on; restore them, or choose another "
            "--workdir"
        )
    programs.use_compilation_cache()
    processes.agree("how it was started", _facts(asked, work))
    with contextlib.ExitStack() as held:
        processes.by_first("taking the workdir", lambda: held.enter_context(home.held()) or None)
        single = Program(work.spec, devices, notice=Notice())
        _announce(work)
        if found is None:
            together, measured = groups.decide(work, devices, single, _say)
            found = _shared(
                "writing the record", lambda: _begin(folder, asked, work, together, measured)
            )
            assert found is not None
        single.notice = Notice(_programs(work, found.together))
        if not _train(work, found.together, single, folder, name):
            return None
        return processes.by_first("writing the results", lambda: results.write(work, folder, found))


def _shared(what: str, action: Callable[[], Record | None]) -> Record | None:
    """The record that `action` gives in process 0, in every process."""

    def plain() -> dict[str, Any] | None:
        found = action()
        return None if found is None else dataclasses.asdict(found)

    told = processes.by_first(what, plain)
    return None if told is None else record.of(told)


def _train(work: Plan, together: bool, single: Program, folder: Path, name: str) -> bool:
    """Trains what is not finished; False when it was told to leave, its state saved."""
    finished = processes.by_first(
        "looking for finished runs",
        lambda: [run.name for run in work.runs if record.done(folder, run.name)],
    )
    for number, group in enumerate(groups.of(work, together)):
        if all(run.name in finished for run in group.runs):
            continue
        program = single
        if len(group.runs) > 1:
            program = Program(work.spec, single.mesh, len(work.runs), single.notice)
        if not loop.train(work, group, program, single, folder, number * work.schedule.steps):
            several = " (in every process, with its flags)" if jax.process_count() > 1 else ""
            _say(f"to go on: electra-jax finetune --workdir {shlex.quote(name)}{several}")
            return False
    return True


def _opened(folder: Path, config: Mapping[str, Any] | None) -> Record | None:
    """The record of a workdir; None of a new one. UserError where there is nothing to go on with, or in the way."""
    if not (folder / record.RECORD).exists():
        if config is None:
            raise UserError(f"{folder} holds no fine-tuning to resume; give --config to start one")
        _refuse_foreign(folder)
        return None
    found = record.read(folder)
    return dataclasses.replace(found, config=complete(found.config))


def _facts(asked: Mapping[str, Any], work: Plan) -> dict[str, Any]:
    """What all processes of a command must have in common; where their files lie may differ."""
    local = ("data.dir", "data.train", "data.dev", "data.test", "data.tokenizer", "init")
    return {
        "config": {name: value for name, value in flat(asked).items() if name not in local},
        "encoder": work.start.digest(),
        "data": _fingerprints(work),
        "task files": own.digests(work.options.tasks),
        "versions": {name: v for name, v in versions().items() if name != "python"},
    }


def _refuse_foreign(folder: Path) -> None:
    """UserError for a folder of something else; what a start that was killed early left is no such thing."""
    if (folder / RUN).exists():
        raise UserError(
            f"{folder} is a pretraining workdir; choose another --workdir, and give this one as --init"
        )
    ours = {".lock", "tokenizer", own.FOLDER}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - ours:
        files.refuse_existing(folder)


def _begin(
    folder: Path, asked: Any, work: Plan, together: bool, measured: dict[str, float] | None
) -> Record:
    tasks = [d.task.name for d in work.data]
    work.start.tokenizer.save(folder / "tokenizer", max_length=work.start.dims.spec.positions)
    own.keep(folder, work.options.tasks, tasks)
    found = {
        "format": record.FORMAT,
        "config": asked,
        "init": work.start.origin,
        "tasks": tasks,
        "labels": {d.task.name: list(d.labels) for d in work.data},
        "score_range": {d.task.name: d.task.score_range for d in work.data},
        "max_len": {d.task.name: d.max_len for d in work.data},
        "heads": {d.task.name: to_dict(d.head) for d in work.data},
        "examples": {d.task.name: len(d.train) for d in work.data},
        "fingerprint": _fingerprints(work),
        "model": to_dict(work.start.dims.spec),
        "vocab_size": work.start.dims.vocab_size,
        "runs": [to_dict(run) for run in work.runs],
        majority.NAME: majority.measure(work),
        "together": together,
        "measured": measured,
        "steps": work.schedule.steps,
        "versions": versions(),
    }
    found = json.loads(json.dumps(found))
    files.write_json(folder / record.RECORD, found)
    return record.of(found)


def _fingerprints(work: Plan) -> dict[str, str]:
    return {d.task.name: d.fingerprint for d in work.data}


def _as_begun(made: Options, found: Record, folder: Path) -> Options:
    """The options of a run that goes on: users' own tasks as the workdir keeps them, `data.max_len` within the
    encoder's positions, to which a longer one was cut once.
    """
    within = min(made.data.max_len, found.model["positions"])
    return dataclasses.replace(
        made,
        tasks=own.as_kept(folder, made.tasks, found.tasks),
        data=dataclasses.replace(made.data, max_len=within),
    )


def _divides(made: Options, devices: int) -> None:
    t = made.train
    for name, rows, parts in (
        ("train.batch", t.batch, max(1, t.accumulation)),
        ("eval.batch", made.eval.batch, 1),
    ):
        if rows % (parts * devices):
            nearest = max(1, round(rows / (parts * devices))) * parts * devices
            cut = f" x {parts} micro-batches (train.accumulation)" if parts > 1 else ""
            raise UserError(
                f"{name}={rows} does not divide over {devices} devices{cut}; the nearest that does is "
                f"{nearest}"
            )


def _announce(work: Plan) -> None:
    for d in work.data:
        sizes = ", ".join(f"{len(s.examples):,} {name}" for name, s in d.splits.items())
        _say(
            f"{d.task.name}: {len(d.train):,} rows to train on, {sizes}; {d.max_len} tokens at most"
        )
    spec, s = work.spec, work.schedule
    lengths = ", ".join(map(str, s.orders[0].buckets))
    _say(
        f"{len(work.runs)} run{'s' * (len(work.runs) > 1)} of {s.steps:,} steps of "
        f"{work.options.train.batch}; layer-wise decay {spec.layer_decay:g}; rows of {lengths} tokens"
    )


def _programs(work: Plan, together: bool) -> int:
    """Says how many programs may be compiled, at most, and returns it."""
    trained, predicted = len(work.schedule.orders[0].buckets), len(work.eval_buckets)
    # Runs that train together predict dev together, and their last predictions one by one.
    most = len(work.data) * (trained + predicted * (1 + together))
    _say(
        f"up to {most} programs are compiled, each when its first batch comes; lengths of rows: "
        f"{trained} to train on, {predicted} to predict"
    )
    return most


def _say(text: str) -> None:
    if not processes.is_first():
        return
    tqdm.write(text, file=sys.stderr)  # above a progress bar, if one is shown
    sys.stderr.flush()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    as_dict = config.to_dict() if hasattr(config, "to_dict") else config
    return json.loads(json.dumps(as_dict))


def _overridden(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    changed = ConfigDict(config).lock()
    for override in overrides:
        apply_override(changed, override, TYPES)
    return _plain(changed)


def _same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [
        f"{section}.{key}: was {old[section].get(key)!r}, now {value!r}"
        for section in new
        if isinstance(new[section], Mapping)
        for key, value in new[section].items()
        if old[section].get(key) != value and not f"{section}.{key}".startswith(FREE)
    ]
    changed += [
        f"{name}: was {old[name]!r}, now {new[name]!r}"
        for name in ("init", "tasks")
        if old[name] != new[name]
    ]
    if changed:
        raise UserError(
            f"{folder} holds a fine-tuning with another config; {'; '.join(changed)}. Resume it "
            "with finetune --workdir alone, or choose another --workdir"
        )
