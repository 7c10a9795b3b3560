"""Checkpoints as they lie in their folder: listed, read and compared with what was saved, without Orbax.

`folder` is a Path, or for a bucket an epath.Path, which acts like one; a checkpoint's own is <folder>/<step>.
"""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from etils import epath

from electra_jax import records, remote
from electra_jax.spec import UserError
from electra_jax.train import arrays, unconfirmed

FOLDER = "checkpoints"
# A file of a workdir whose checkpoints lie elsewhere, on a bucket: their URL.
ELSEWHERE = ".checkpoints"
FORMAT = "electra_jax checkpoint 1"
DAMAGED = ".damaged"  # ending of a checkpoint's folder that was moved aside
# What reading a damaged folder raises: files gone, cut short, or decoding to something else.
READ_FAULTS = (OSError, ValueError, KeyError, TypeError)
COMMITTED = "commit_success.txt"  # of Orbax
_FIELDS = {"arrays": dict[str, dict[str, Any]], "meta": Any}
_PARTIAL = re.compile(r"\d+\.orbax-checkpoint-tmp.*")


class DamagedError(Exception):
    """Why a checkpoint cannot be read."""


def is_partial(name: str) -> bool:
    """Whether a folder of this name holds a save that was not finished."""
    return _PARTIAL.fullmatch(name) is not None


def place(workdir: Path) -> Any:
    """Where a workdir's checkpoints are: a Path, or for a bucket an epath.Path, which acts like one."""
    note = workdir / ELSEWHERE
    return epath.Path(note.read_text()) if note.is_file() else workdir.absolute() / FOLDER


def on_bucket(folder: Any) -> bool:
    """Whether the folder lies on a bucket."""
    return remote.is_remote(folder)


def steps(folder: Any) -> list[int]:
    """The steps with a finished checkpoint, ascending."""
    return sorted(step for step, whole in _folders(folder).items() if whole)


def uncommitted(folder: Any) -> list[int]:
    """What a killed save left on a bucket."""
    return sorted(step for step, whole in _folders(folder).items() if not whole)


def _folders(folder: Any) -> dict[int, bool]:
    """Every step with a folder of its own, and whether its save was finished."""
    if not on_bucket(folder):
        there = folder.iterdir() if folder.is_dir() else ()
        return {int(p.name): True for p in there if p.name.isdecimal() and p.is_dir()}
    names = remote.sizes(str(folder))  # not by epath, which remembers what it has seen
    tops = {name.partition("/")[0] for name in names}
    return {int(top): f"{top}/{COMMITTED}" in names for top in tops if top.isdecimal()}


def remove(folder: Any) -> None:
    """Removes a checkpoint, or what there is of one."""
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


def read(folder: Any, prefix: str | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save` wrote beside the state, and the arrays whose paths begin with `prefix` (None: none of them).

    Every array is read and compared with what was saved, before anything relies on it. Raises DamagedError or one of
    READ_FAULTS where one differs or is gone, UserError for what another program wrote.
    """
    names = {p.name for p in folder.iterdir()}
    if names and not names & {"state", "meta"} and any(not n.startswith("_") for n in names):
        raise UserError(
            f"{folder} was not written by this program (it holds {', '.join(sorted(names)[:5])}); "
            "move it away, or choose another --workdir"
        )
    told, kept = record(folder), {}
    for path, row in told["arrays"].items():
        x = _read_array(folder, path)
        found = [list(x.shape), x.dtype.name, arrays.checksum_numpy(x)]
        if found != [row["shape"], row["dtype"], row["checksum"]]:
            raise DamagedError(f"the content of {path} has changed since it was saved")
        if prefix is not None and path.startswith(prefix):
            kept[path] = x
    return told, kept


def _read_array(folder: Any, path: str) -> np.ndarray:
    """One array of the state, without Orbax, whose restore cannot be stopped at the first fault."""
    base: dict[str, Any] = {"driver": "file", "path": f"{folder / 'state'}/"}
    if on_bucket(folder):
        base = remote.arrays(f"{folder}/state")
    store = {"driver": "ocdbt", "base": base, "path": path.replace("/", ".") + "/"}
    return (
        tensorstore.open({"driver": "auto", "kvstore": store}, read=True).result().read().result()
    )


def record(folder: Any) -> dict[str, Any]:
    """What `save` wrote beside the state; DamagedError where it cannot be read."""
    path = folder / "meta" / "metadata"
    if not path.is_file():
        raise DamagedError("its meta is missing")
    try:
        told = records.parse_object(path.read_bytes(), path)
    except UserError as error:
        raise DamagedError(str(error)) from error
    if told.get("format") != FORMAT:
        found = records.short(told.get("format"))
        raise UserError(f"{path} has format {found}; expected {FORMAT!r}. Move {folder} away")
    try:
        return records.check(told, _FIELDS, path)
    except UserError as error:
        raise DamagedError(str(error)) from error


def remove_partial(folder: Any) -> None:
    """Removes what a save that was killed or failed left."""
    for path in folder.iterdir() if folder.exists() else ():  # on a bucket mkdir makes nothing
        if _PARTIAL.fullmatch(path.name):
            for _ in range(20):  # threads of a save that failed may write for a moment still
                shutil.rmtree(path, ignore_errors=True)
                time.sleep(0.1)
                if not path.exists():
                    break
