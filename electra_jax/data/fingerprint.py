"""What a prepared folder says about itself: `fingerprint.json`, written last and checked on opening."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.data import fields
from electra_jax.spec import UserError

NAME = "fingerprint.json"

# Version of the folder's layout; a reader refuses what it does not know.
SCHEMA = 1

_KEYS = (
    "schema",
    "seq_len",
    "vocab_size",
    "fields",
    "dtype",
    "special",
    "tokenizer",
    "options",
    "inputs",
    "valid_inputs",
    "counts",
    "shards",
)


def write(folder: Path, info: dict[str, Any]) -> None:
    """Writes the fingerprint; every key of the layout must be there and no other."""
    if set(info) != set(_KEYS):
        raise ValueError(
            f"fingerprint keys differ from the layout: {sorted(set(info) ^ set(_KEYS))}"
        )
    files.write_json(folder / NAME, {key: info[key] for key in _KEYS})


def read(folder: Path) -> tuple[dict[str, Any], str]:
    """The fingerprint of a prepared folder and its hash, which stands for every byte of the data.

    Raises UserError when the folder is none of ours, of another version, or lacks a shard, and for a
    fingerprint that cannot be true.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected one made by `electra-jax prepare`")
    path = folder / NAME
    if not path.is_file():
        raise UserError(
            f"{folder} has no {NAME}; expected a folder made by `electra-jax prepare` "
            "(a raw corpus has to be prepared first)"
        )
    text = path.read_bytes()
    info = parse(str(path), text)
    _check_shards(folder, info["shards"])
    return info, hashlib.sha256(text).hexdigest()


def parse(where: str, text: bytes) -> dict[str, Any]:
    """The content of a fingerprint, every field that is used of its type and in its range.

    Raises UserError, with `where` and the field, for one of another version or one that is damaged.
    """
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({error}); prepare the data again") from None
    found = info.get("schema") if isinstance(info, dict) else None
    if type(found) is not int or found != SCHEMA:
        raise UserError(
            f"{where} has schema version {json.dumps(found)[:40]}, this program reads {SCHEMA}; "
            "prepare the data again with this version"
        )
    if missing := [key for key in _KEYS if key not in info]:
        raise UserError(f"{where} lacks {', '.join(missing)}; prepare the data again")
    fields.check(where, info)
    return info


def _check_shards(folder: Path, shards: list[dict[str, Any]]) -> None:
    """Every shard present and of its recorded size; all that are not are named in one error."""
    wrong = []
    for shard in shards:
        try:
            about = os.stat(os.path.join(folder, shard["name"]))
        except OSError:
            about = None
        if about is None or not stat.S_ISREG(about.st_mode):
            wrong.append(f"{shard['name']} is missing")
        elif about.st_size != shard["bytes"]:
            wrong.append(f"{shard['name']} has {about.st_size} bytes, expected {shard['bytes']}")
    if wrong:
        raise UserError(
            f"{folder} is incomplete: {'; '.join(wrong)}. Copy the folder again or prepare it again"
        )
