"""The record of a pretraining run in its workdir: read whole and checked; and the versions it was made with.

config.json     config, data fingerprint and versions of the last start; every change since the first, with its step
tokenizer/      copied from the prepared data
checkpoints/    metrics.jsonl    tensorboard/    evaluate-<step>.json
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from electra_jax import __version__, records
from electra_jax.spec import UserError

RECORD = "config.json"
FORMAT = "electra_jax run 1"
_RESTORE = "restore it or start another workdir"
_FIELDS = {
    "config": dict[str, Any],
    "data": dict[str, Any],
    "versions": dict[str, str],
    "changes": list[dict[str, Any]] | None,
}
_DATA_FIELDS = {
    "phases": list[str] | None,
    "fingerprint": str,
    "tokenizer_hash": str,
    "vocab_size": records.Whole(1),
    "seq_len": records.Whole(1),
    "rows": dict[str, records.Whole()],  # type: ignore[misc]
}


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "electra_jax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def read_record(folder: str | Path) -> dict[str, Any]:
    """The content of config.json; UserError when it is missing, damaged or of another format."""
    path = Path(folder) / RECORD
    if not path.exists():
        raise UserError(
            f"{folder} is not a workdir: it has no {RECORD}; start a run with electra-jax pretrain"
        )
    record = records.read(path, _RESTORE)
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path} was not written by this version of electra-jax (expected format {FORMAT!r})"
        )
    records.check(record, _FIELDS, path, _RESTORE)
    records.check(record["data"], _DATA_FIELDS, f"{path}, data", _RESTORE)
    return record
