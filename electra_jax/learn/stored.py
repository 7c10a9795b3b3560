"""The folder of a workdir's checkpoints, on a disk or on a bucket: which are whole, which are not, what is foreign.

On a bucket, where nothing is renamed, a folder that is whole holds `commit_success.txt`.
"""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from etils import epath

from electra_jax import remote
from electra_jax.learn import unconfirmed
from electra_jax.spec import UserError

FOLDER = "checkpoints"
# A file of a workdir whose checkpoints lie elsewhere, on a bucket: their URL.
ELSEWHERE = ".checkpoints"
COMMITTED = "commit_success.txt"  # of Orbax
DAMAGED = ".damaged"  # ending of a checkpoint's folder that was moved aside
_PARTIAL = re.compile(r"\d+\.orbax-checkpoint-tmp.*")


def is_partial(name: str) -> bool:
    """Whether a folder of this name holds a save that was not finished."""
    return _PARTIAL.fullmatch(name) is not None


def place(workdir: Path) -> Any:
    """Where a workdir's checkpoints are: a Path, or for a bucket an epath.Path, which acts like one."""
    note = workdir / ELSEWHERE
    return epath.Path(note.read_text()) if note.is_file() else workdir.absolute() / FOLDER


def on_bucket(folder: Any) -> bool:
    """Whether the checkpoints are on a bucket, not on a disk."""
    return remote.is_remote(folder)


def steps(folder: Any) -> list[int]:
    """The steps with a finished checkpoint, ascending."""
    return sorted(step for step, whole in _found(folder).items() if whole)


def uncommitted(folder: Any) -> list[int]:
    """What a killed save left on a bucket."""
    return sorted(step for step, whole in _found(folder).items() if not whole)


def _found(folder: Any) -> dict[int, bool]:
    """Every step with a folder of its own, and whether its save was finished."""
    if not on_bucket(folder):
        there = folder.iterdir() if folder.is_dir() else ()
        return {int(p.name): True for p in there if p.name.isdecimal() and p.is_dir()}
    names = remote.sizes(str(folder))  # not by epath, which remembers what it has seen
    tops = {name.partition("/")[0] for name in names}
    return {int(top): f"{top}/{COMMITTED}" in names for top in tops if top.isdecimal()}


def remove(folder: Any) -> None:
    """Removes one checkpoint's folder, if it is there."""
    if on_bucket(folder):
        for name in remote.sizes(str(folder)):
            remote.delete(remote.join(str(folder), name))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_foreign(folder: Any) -> None:
    """UserError for anything among the checkpoints that this program does not make."""
    _refuse_lost(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder of checkpoints")
    for path in folder.iterdir() if folder.exists() else ():
        _refuse_lost(path)
        if not path.exists():
            continue  # a run that goes on has removed or named it since
        name = path.name.removesuffix(DAMAGED).removesuffix(unconfirmed.REJECTED)
        ours = path.is_dir() and (name.isdecimal() or _PARTIAL.fullmatch(name))
        if not ours and not name.startswith("."):
            raise UserError(
                f"{path} is no checkpoint of this program; move it out of {folder}, "
                "or choose another --workdir"
            )


def _refuse_lost(path: Any) -> None:
    """UserError for a link that leads nowhere: what was meant is not lost, but not here."""
    if not on_bucket(path) and path.is_symlink() and not path.exists():
        raise UserError(
            f"{path} is a link to {os.readlink(path)}, where nothing is; bring back what it led to (is a disk not "
            "mounted?), or remove the link"
        )


def remove_partial(folder: Any) -> None:
    """Removes what saves that were killed or failed left on a disk."""
    for path in folder.iterdir() if folder.exists() else ():  # on a bucket mkdir makes nothing
        if _PARTIAL.fullmatch(path.name):
            for _ in range(20):  # threads of a save that failed may write for a moment still
                shutil.rmtree(path, ignore_errors=True)
                time.sleep(0.1)
                if not path.exists():
                    break
