"""Checkpoints saved before all data had been checked: a note beside each, until they are confirmed or moved aside.

    <workdir>/checkpoints/.unconfirmed-<step>   JSON: the shards that had not been checked, and what tells their files

The note is written before the checkpoint and removed when the data have proved to be whole.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbax.checkpoint import checkpoint_managers

from electra_jax import files, remote

NOTE = ".unconfirmed-"  # beginning of a note's name
REJECTED = ".unverified"  # ending of a checkpoint's folder that was moved aside
_REASON = "why.txt"

Pending = Mapping[str, Sequence[int]]


def note(folder: Any, step: int, pending: Pending) -> None:
    """Notes that `step` is about to be saved while the shards `pending` are unchecked."""
    text = json.dumps({"shards": pending}).encode()
    if remote.is_remote(folder):
        remote.write(remote.join(str(folder), f"{NOTE}{step}"), text)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(folder / f"{NOTE}{step}", text)


def noted(folder: Any) -> dict[int, Pending]:
    """The pending shards of every unconfirmed step; a note that cannot be read has one that matches no file."""
    found = {}
    for name in _names(folder):
        step = name.removeprefix(NOTE)
        if name != step and step.isdecimal():
            found[int(step)] = _read(folder, name)
    return found


def confirm(folder: Any) -> None:
    """Removes all notes."""
    for step in noted(folder):
        _remove_note(folder, step)


def reject(folder: Any, step: int, reason: str) -> bool:
    """Moves the checkpoint of a step aside, with the reason in a file, and removes its note; whether there was one."""
    there, aside = folder / str(step), folder / f"{step}{REJECTED}"
    found = there.exists()
    if found:
        if not remote.is_remote(folder):
            shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):  # another process of the run was faster
            there.rename(aside)
            (aside / _REASON).write_text(reason + "\n")
    _remove_note(folder, step)
    return found


@dataclass
class NewestConfirmed(checkpoint_managers.PreservationPolicy):
    """Keeps the newest confirmed checkpoint, whatever came after it. `unconfirmed` gives the steps that are not."""

    unconfirmed: Callable[[], Mapping[int, Pending]]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """One answer a checkpoint, of Orbax's PolicyCheckpointInfo, oldest first."""
        noted = self.unconfirmed()
        newest = max((c.step for c in checkpoints if c.step not in noted), default=None)
        return [c.step == newest for c in checkpoints]


def _names(folder: Any) -> list[str]:
    if remote.is_remote(folder):
        return [name for name in remote.sizes(str(folder)) if "/" not in name]
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _read(folder: Any, name: str) -> Pending:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        here = remote.is_remote(folder)
        path = remote.join(str(folder), name)
        text = remote.read(path) if here else (folder / name).read_bytes()
        return {shard: [int(n) for n in was] for shard, was in json.loads(text)["shards"].items()}
    return {name: []}


def _remove_note(folder: Any, step: int) -> None:
    if remote.is_remote(folder):
        remote.delete(remote.join(str(folder), f"{NOTE}{step}"))
    else:
        (folder / f"{NOTE}{step}").unlink(missing_ok=True)
