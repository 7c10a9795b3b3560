"""What a checkpoint holds: read and compared with what was saved, without Orbax.

`folder` is the checkpoint's own, a Path or for a bucket an epath.Path.
"""

from typing import Any

import numpy as np
import tensorstore

from electra_jax import records, remote
from electra_jax.learn import arrays, stored
from electra_jax.spec import UserError

FORMAT = "electra_jax checkpoint 1"
# What reading a damaged folder raises: files gone, cut short, or decoding to something else.
READ_FAULTS = (OSError, ValueError, KeyError, TypeError)
_FIELDS = {"arrays": dict[str, dict[str, Any]], "meta": Any}


class DamagedError(Exception):
    """Why a checkpoint cannot be read."""


def read(
    folder: Any, prefix: str | tuple[str, ...] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save` wrote beside the state, and the arrays whose paths begin with `prefix`, or one of several
    (None: none of them).

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
    if stored.on_bucket(folder):
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
