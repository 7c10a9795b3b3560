"""The start of a run: its resolved config, the data it is trained on, what has changed since the last start."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.data.source import Prepared
from electra_jax.learn import checkpoint, optim
from electra_jax.objective import registry
from electra_jax.pretrain import origin, sensible
from electra_jax.pretrain.options import RunSpec, complete, run_spec, with_own_options
from electra_jax.spec import UserError, overridden
from electra_jax.workdir import changes, imported, usercode
from electra_jax.workdir.changes import Change
from electra_jax.workdir.record import FORMAT, RECORD, read_record, versions

FINE_TUNED = "finetune.json"  # the record of a fine-tuning, which is no place for a pretraining


@dataclass(frozen=True)
class Start:
    """Everything that is known before the first device is touched."""

    folder: Path
    config: dict[str, Any]
    run: RunSpec
    data: Prepared
    resumed: bool  # the workdir already holds a run
    changes: tuple[Change, ...] = ()  # since the last start
    note: str | None = None  # what was made of the options that the user should know
    code: bytes | None = None  # the user's own objective, where the workdir is to keep it


def open_run(
    config: Mapping[str, Any] | None,
    folder: str | Path,
    overrides: Sequence[str] = (),
    allow_change: Sequence[str] = (),
) -> Start:
    """The run of a workdir: a new one from `config`, or the one it holds; `overrides` ("key.path=value") apply to it.

    Overrides that leave fewer steps than the config's own warmup scale it. Raises UserError when there is neither, when
    both are there and differ in what `allow_change` does not name, for options that cannot be meant, when the data are
    not those the run was started on, or when an imported model conflicts with config or data. Writes nothing.
    """
    folder = Path(folder)
    record = _record_of(folder, config is not None)
    before = None if record is None else complete(record["config"])
    recipe = before
    if config is not None:
        recipe = complete(_plain(with_own_options(config, overrides)))
    assert recipe is not None  # one of the two is there
    asked = _plain(overridden(recipe, overrides))
    _adopt_rows(folder, asked)
    run_spec(asked)
    notes = []
    if config is not None and not any(o.startswith("optim.warmup=") for o in overrides):
        notes.append(sensible.shorten_warmup(recipe, asked, before))
    changes.check_names(allow_change, asked)
    name = asked["objective"]["name"]
    code, found, note = usercode.changed(folder, name, config is not None, allow_change)
    notes.append(note)
    if not (folder / usercode.COPY).is_file():
        code = usercode.read(name)
    run = run_spec(asked, folder if code is None else None)
    sensible.check({**asked, "objective": dict(run.objective)}, before)
    if record is not None and before is not None:
        saved = checkpoint.Checkpoints(folder).newest_meta()
        found += edited(folder, record, saved, allow_change)
        free = ending(run_spec(before, folder), run, 0 if saved is None else saved[0])
        found += changes.of_config(folder, before, asked, allow_change, free)
    if not run.data.path:
        raise UserError("no data: give --config.data.path=FOLDER, made by electra-jax prepare")
    data = run.data.open()
    asked["data"]["path"] = data.origin  # a resume may start from another folder
    for phase in asked["train"]["phases"]:
        if phase.get("path"):
            phase["path"] = run.data.open(phase["path"]).origin
    if record is not None:
        found += changes.of_data(
            folder, data.path, record["data"], data_record(data, run), allow_change
        )
    _fits_import(folder, run, data)
    if record is None or not checkpoint.Checkpoints(folder).steps():
        origin.check(run.make_objective(data), data, run.dimensions(data.vocab_size))
    note = "; ".join(filter(None, notes)) or None
    return Start(folder, asked, run, data, record is not None, found, note, code)


def _record_of(folder: Path, is_new: bool) -> dict[str, Any] | None:
    """The record of the run that a folder holds; None of a new one. UserError for a folder of something else, and where
    there is no run to go on with and no new one is begun.
    """
    record = read_record(folder) if (folder / RECORD).exists() else None
    if record is None and (folder / "checkpoints").exists():
        raise UserError(
            f"{folder} has checkpoints but no {RECORD}; it is not a workdir of this program"
        )
    if record is None and (folder / FINE_TUNED).exists():
        raise UserError(
            f"{folder} is a fine-tuned workdir; choose another --workdir, or go on with electra-jax finetune --workdir"
        )
    if record is None and not is_new:
        hint = "it was imported; " if (folder / imported.RECORD).exists() else ""
        raise UserError(
            f"{folder} holds no run to resume ({hint}no {RECORD}); give --config to start one"
        )
    return record


def edited(
    folder: str | Path,
    record: Mapping[str, Any],
    saved: tuple[int, Any] | None,
    allow_change: Sequence[str] = (),
) -> tuple[Change, ...]:
    """What was changed by hand in config.json, as far as `allow_change` names it; UserError for the rest.

    `saved` is step and meta of a checkpoint of the run, which have their own record of config and data.
    """
    if saved is None or not isinstance(saved[1], dict):
        return ()
    step, meta = saved
    config = meta.get("config")
    own = {"config": complete(config) if isinstance(config, dict) else {}, "data": meta.get("data")}
    asked = {**record, "config": complete(record["config"])}
    return changes.by_hand(Path(folder) / RECORD, asked, step, own, allow_change)


def ending(before: RunSpec, now: RunSpec, done: int) -> tuple[str, ...]:
    """The fields that say how a run ends, where that changes no rate of its first `done` steps: schedule wsd, and the
    decay begins no earlier under either of the two.
    """
    runs = (before, now)
    if any(r.train.phases or r.train.budget or r.optim.schedule != "wsd" for r in runs):
        return ()
    level = min(optim.level_until(r.optim, r.train.steps) for r in runs)
    # Step `done` is yet to be taken, so that the decay may begin with it.
    return ("train.steps", "optim.decay_steps", "optim.decay_shape") if done <= level else ()


def begin(start: Start, step: int = 0) -> None:
    """Writes the record and the tokenizer of a new run; of one resumed after `step`, what it now runs under."""
    start.folder.mkdir(parents=True, exist_ok=True)
    usercode.keep(start.folder, start.code)
    tokenizer = start.folder / "tokenizer"
    if not tokenizer.exists():
        with files.new_folder(tokenizer) as temporary:
            shutil.copytree(start.data.path / "tokenizer", temporary, dirs_exist_ok=True)
    earlier = read_record(start.folder).get("changes", []) if start.resumed else []
    record = {
        "format": FORMAT,
        "config": start.config,
        "data": data_record(start.data, start.run),
        "versions": versions(),
        "changes": [*earlier, *({"step": step, **asdict(c)} for c in start.changes)],
    }
    files.write_json(start.folder / RECORD, record)


def data_record(data: Prepared, run: RunSpec | None = None) -> dict[str, Any]:
    """What identifies the data of a run, kept in its record and beside each checkpoint."""
    several = run.phases(data) if run is not None and run.train.phases else ()
    return {
        **({"phases": [phase.data.fingerprint for phase in several]} if several else {}),
        "fingerprint": data.fingerprint,
        "tokenizer_hash": data.tokenizer_hash,
        "vocab_size": data.vocab_size,
        "seq_len": data.seq_len,
        "rows": dict(data.rows),
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON gives it back: nested dicts, tuples as lists."""
    as_dict = config.to_dict() if hasattr(config, "to_dict") else config
    try:
        return json.loads(json.dumps(as_dict))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"the config holds what JSON has no word for ({error}); use plain numbers, texts, lists and sections"
        ) from None


def _adopt_rows(folder: Path, asked: dict[str, Any]) -> None:
    """Gives a config the rows of an imported word table, which no recipe knows."""
    found = imported.read_record(folder)
    model = asked.get("model")
    if found is not None and isinstance(model, dict) and not model.get("vocab_rows"):
        model["vocab_rows"] = found[0].spec.vocab_rows


def _fits_import(folder: Path, run: RunSpec, data: Prepared) -> None:
    found = imported.read_record(folder)
    if found is None:
        return
    dims, record = found
    asked = run.dimensions(data.vocab_size)
    numbers = registry.numbers(record["objective"])
    wrong = imported.conflicts(dims, asked, numbers)
    if run.objective.get("name") != record["objective"]:
        wrong.append(
            f"objective.name is {run.objective.get('name')}, imported {record['objective']}"
        )
    if wrong:
        raise UserError(
            f"the model imported into {folder} differs from the config or data: " + "; ".join(wrong)
        )
    from electra_jax.text import tokenizer

    if tokenizer.load(folder / "tokenizer").hash != data.tokenizer_hash:
        raise UserError(
            f"{data.path} was prepared with another tokenizer than the model imported into {folder}; prepare it with "
            f"--tokenizer {folder / 'tokenizer'}"
        )
