"""The fields of a fingerprint, by type and range, and whether they agree with one another."""

import collections
from collections.abc import Mapping
from typing import Any

from electra_jax import records
from electra_jax.data import examples, record
from electra_jax.records import Like, Name, Whole
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import SpecialIds

_LARGEST_ID = 2**31 - 1
_MOST = 2**63 - 1  # rows, bytes, tokens
_FIX = "copy the folder again or prepare it again"
# All that a reader uses; what only describes the data (names of inputs, options) is not looked into.
_KINDS = {
    "seq_len": Whole(examples.SHORTEST_ROW, examples.LONGEST_ROW),
    "vocab_size": Whole(1, _LARGEST_ID),
    "special": dict[str, Any],
    "tokenizer": dict[str, Any],
    "options": dict[str, Any],
    "counts": dict[str, dict[str, float]],
    "inputs": list[Any],
    "valid_inputs": list[Any],
    "shards": list[dict[str, Any]],
}
_SPLITS = ("train", "valid")
_SHARD = {
    "name": Name(),  # and no path: nothing outside of the folder is opened
    "split": Like("|".join(_SPLITS)),
    "bytes": Whole(0, _MOST),
    "sha256": Like("[0-9a-f]{64}"),
    "rows": Whole(1, _MOST),
}


def check(where: str, info: Mapping[str, Any]) -> None:
    """Raises UserError, with `where` and the field, for a value that no prepared folder has."""
    records.check(info, _KINDS, where, _FIX)
    size, special = info["vocab_size"], info["special"]
    dtype = record.dtype_for(size).str
    _agrees(where, "fields", info["fields"], list(record.FIELDS))
    _agrees(where, "dtype", info["dtype"], dtype)
    _agrees(where, "the names in special", sorted(special), sorted(SpecialIds._fields))
    records.check(special, dict.fromkeys(special, Whole(0, size - 1)), f"{where}, special", _FIX)
    _agrees(where, "the number of ids in special", len(set(special.values())), len(special))
    records.check(info["tokenizer"], {"hash": Like(".+")}, f"{where}, tokenizer", _FIX)
    rows: collections.Counter[str] = collections.Counter()
    for number, shard in enumerate(info["shards"]):
        records.check(shard, _SHARD, f"{where}, shards[{number}]", _FIX)
        rows[shard["split"]] += shard["rows"]
    names = {shard["name"] for shard in info["shards"]}
    _agrees(where, "the number of names in shards", len(names), len(info["shards"]))
    records.check(info["counts"], dict.fromkeys(_SPLITS, dict[str, Any]), f"{where}, counts", _FIX)
    for split in _SPLITS:
        counts, at = info["counts"][split], f"{where}, counts.{split}"
        records.check(counts, {"rows": Whole(0, _MOST)}, at, _FIX)
        below = [name for name, value in counts.items() if not 0 <= value <= _MOST]
        _agrees(where, f"counts.{split}, fields below 0 or too large", below, [])
        _agrees(where, f"counts.{split}.rows", counts["rows"], rows[split])


def _agrees(where: str, field: str, found: Any, expected: Any) -> None:
    if found != expected or type(found) is not type(expected):
        said = f"{field}: {records.short(found)}, expected {records.short(expected)}"
        raise UserError(f"{where} is damaged: {said}; {_FIX}")
