"""The fields of a fingerprint, by type and range, and whether they agree with one another."""

import collections
import json
import re
from collections.abc import Mapping
from typing import Any

from electra_jax.data import examples, record
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import SpecialIds

_LARGEST_ID = 2**31 - 1
_MOST = 2**63 - 1  # rows, bytes, tokens
_SPLITS = ("train", "valid")


def check(where: str, info: Mapping[str, Any]) -> None:
    """Raises UserError, with `where` and the field, for a value that no prepared folder has.

    Checked is all that a reader uses; what only describes the data (names of inputs, options) is not.
    """
    fields = _Fields(where)
    fields.integer(info, "seq_len", examples.SHORTEST_ROW, examples.LONGEST_ROW)
    size = fields.integer(info, "vocab_size", 1, _LARGEST_ID)
    if info["fields"] != list(record.FIELDS):
        raise fields.wrong("fields", info["fields"], json.dumps(record.FIELDS))
    dtype = record.dtype_for(size).str
    if info["dtype"] != dtype:
        raise fields.wrong("dtype", info["dtype"], f'"{dtype}" for a vocabulary of {size}')
    special = fields.mapping(info, "special")
    if set(special) != set(SpecialIds._fields):
        raise fields.wrong("special", special, f"the ids of {', '.join(SpecialIds._fields)}")
    for name in special:
        fields.integer(special, name, 0, size - 1, "special.")
    if len(set(special.values())) < len(special):
        raise fields.wrong("special", special, "another id for each")
    fields.text(fields.mapping(info, "tokenizer"), "hash", ".+", "tokenizer.")
    for key in ("options", "counts"):
        fields.mapping(info, key)
    for key in ("inputs", "valid_inputs", "shards"):
        fields.listing(info, key)
    rows: collections.Counter[str] = collections.Counter()
    for number, shard in enumerate(info["shards"]):
        split, found = _shard(fields, shard, f"shards[{number}].")
        rows[split] += found
    names = [shard["name"] for shard in info["shards"]]
    if len(set(names)) < len(names):
        raise fields.wrong("shards", names, "another name for each")
    for split in _SPLITS:
        counts = fields.mapping(info["counts"], split, "counts.")
        for name, value in counts.items():
            if type(value) not in (int, float) or not 0 <= value <= _MOST:
                raise fields.wrong(f"counts.{split}.{name}", value, "a number, 0 or more")
        total = fields.integer(counts, "rows", 0, _MOST, f"counts.{split}.")
        if total != rows[split]:
            said = f"{rows[split]}, the rows of its shards"
            raise fields.wrong(f"counts.{split}.rows", total, said)


def _shard(fields: "_Fields", shard: Any, at: str) -> tuple[str, int]:
    """The split and the rows of one shard."""
    if not isinstance(shard, dict):
        raise fields.wrong(at.rstrip("."), shard, "an object")
    # A name and no path: nothing outside of the folder is opened.
    fields.text(shard, "name", r"[^/\\\0]*[^/\\\0.][^/\\\0]*", at)
    split = fields.text(shard, "split", "|".join(_SPLITS), at)
    fields.integer(shard, "bytes", 0, _MOST, at)
    fields.text(shard, "sha256", "[0-9a-f]{64}", at)
    return split, fields.integer(shard, "rows", 1, _MOST, at)


class _Fields:
    """Values by name, each of its type, or a UserError that names the file and the field."""

    def __init__(self, where: str) -> None:
        self._where = where

    def integer(
        self, values: Mapping[str, Any], key: str, least: int, most: int, at: str = ""
    ) -> int:
        value = values.get(key)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(at + key, value, f"a whole number from {least} to {most}")
        return value

    def text(self, values: Mapping[str, Any], key: str, pattern: str, at: str = "") -> str:
        value = values.get(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.wrong(at + key, value, f"a text like {pattern}")
        return value

    def mapping(self, values: Mapping[str, Any], key: str, at: str = "") -> dict[str, Any]:
        value = values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(at + key, value, "an object")
        return value

    def listing(self, values: Mapping[str, Any], key: str) -> None:
        if not isinstance(values.get(key), list):
            raise self.wrong(key, values.get(key), "a list")

    def wrong(self, field: str, value: Any, expected: str) -> UserError:
        found = json.dumps(value, ensure_ascii=False)
        found = found if len(found) <= 80 else f"{found[:77]}..."
        return UserError(
            f"{self._where}: {field} is {found}; expected {expected}. The file was damaged or edited; "
            "copy the folder again or prepare it again"
        )
