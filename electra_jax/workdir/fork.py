"""A run that begins as the copy of another up to a checkpoint, and goes on by itself.

<workdir>/fork.json   the workdir and the step that it began with
"""

import shutil
from pathlib import Path

from electra_jax import files, records, remote
from electra_jax.learn import stored
from electra_jax.learn.unconfirmed import NOTE
from electra_jax.spec import UserError
from electra_jax.workdir import imported, usercode
from electra_jax.workdir.record import RECORD, read_record

NOTED = "fork.json"
# What a run's folder holds besides checkpoints, as far as going on needs it.
_SMALL = (RECORD, "metrics.jsonl", usercode.COPY, imported.RECORD, imported.PARAMS)


def fork(source: str | Path, folder: str | Path, step: int | None = None) -> str | None:
    """Makes `folder` a workdir with the run of `source` as it was after `step`, by default its newest checkpoint.

    Returns what to say of it; None where `folder` was made by this before, and its run goes on. Nothing of `source` is
    changed, and later nothing of it is needed. UserError for a bucket, a source without this checkpoint or a folder
    with something else in it.
    """
    for place in (source, folder):
        if remote.is_remote(place):
            raise UserError(
                f"--from {source} --workdir {folder}: one of them is on a bucket; copy the run to a local folder first"
            )
    source, folder = Path(source), Path(folder)
    read_record(source)
    checkpoints = stored.place(source)
    known = stored.steps(checkpoints)
    if (folder / NOTED).is_file():
        found = records.read(folder / NOTED, "start another workdir")
        if step not in (None, found.get("step")):
            raise UserError(
                f"{folder} was begun from step {found.get('step')} of {found.get('workdir')}, not from step {step}; "
                "go on with it without --from, or choose another --workdir"
            )
        return None
    if not known or (step is not None and step not in known):
        listed = ", ".join(map(str, known)) or "none"
        wanted = "" if step is None else f" of step {step}"
        raise UserError(f"{source} has no checkpoint{wanted} to begin from; it has: {listed}")
    chosen = known[-1] if step is None else step
    with files.new_folder(folder) as temporary:
        _copy(source, checkpoints, chosen, temporary)
        files.write_json(temporary / NOTED, {"workdir": str(source.resolve()), "step": chosen})
    return f"{folder} begins as {source} was after step {chosen}"


def _copy(source: Path, checkpoints: Path, step: int, target: Path) -> None:
    for name in _SMALL:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    shutil.copytree(source / "tokenizer", target / "tokenizer")
    kept = target / stored.FOLDER
    shutil.copytree(checkpoints / str(step), kept / str(step))
    # Whether the data it was trained on had been checked.
    note = f"{NOTE}{step}"
    if (checkpoints / note).is_file():
        shutil.copy2(checkpoints / note, kept / note)
