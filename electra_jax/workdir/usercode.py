"""A user's own objective in the workdir of its run: the file that trains is the copy that the workdir keeps."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax import files, userfile
from electra_jax.spec import UserError
from electra_jax.workdir.changes import Change, is_allowed

COPY = "objective.py"
_FIELD = "objective.name"


def resolved(section: Mapping[str, Any], folder: str | Path | None) -> dict[str, Any]:
    """The config section `objective` with the workdir's copy, where it has one, in place of a user's file."""
    if folder is None or not userfile.is_file(section.get("name")):
        return dict(section)
    copy = Path(folder) / COPY
    return dict(section) | ({"name": str(copy)} if copy.is_file() else {})


def changed(
    folder: Path, name: str, given: bool, allowed: Sequence[str]
) -> tuple[bytes | None, tuple[Change, ...], str | None]:
    """(the file to keep from now on, changes, a note) of a run that goes on with the user's file `name`.

    Where the file differs from the workdir's copy the run goes on with the copy, and the note says so; with the file,
    where `allowed` names the objective. UserError where it was `given` anew by a config.
    """
    copy, path = folder / COPY, Path(name)
    if not userfile.is_file(name) or not copy.is_file() or not path.is_file():
        return None, (), None
    was, now = copy.read_bytes(), path.read_bytes()
    if was == now:
        return None, (), None
    if is_allowed(_FIELD, allowed):
        return now, (Change(_FIELD, *(f"{name} ({_digest(x)})" for x in (was, now))),), None
    ways = f"--allow-change {_FIELD} goes on with the changed file"
    if given:
        raise UserError(
            f"{path} has changed since the run in {folder} was begun, which keeps its copy, {copy}. Resume it with "
            f"pretrain --workdir alone to go on with the copy, or choose another --workdir; {ways}"
        )
    return (
        None,
        (),
        f"{path} has changed since the run was begun; it goes on with its copy, {copy}; {ways}",
    )


def keep(folder: Path, code: bytes | None) -> None:
    """Writes the copy; nothing where there is no code to keep."""
    if code is not None:
        files.write_bytes(folder / COPY, code)


def read(name: Any) -> bytes | None:
    """The content of a user's file; None for an objective of the package, or where the file is not there."""
    path = Path(str(name))
    return path.read_bytes() if userfile.is_file(name) and path.is_file() else None


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()[:12]
