"""What may change between two starts of a run, and what is refused by name unless it is allowed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError, flat, unknown_name

# Changes what is written and where it runs, not what is learned.
FREE = (
    "train.stop_at",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.accumulation",
    "mesh.",
    "report.",
    "data.path",  # the fingerprint is compared instead
)
DATA = "data"  # the name under which other data are allowed
# With another tokenizer a row of the word table would stand for another word.
_NEVER = ("tokenizer_hash", "vocab_size")


@dataclass(frozen=True)
class Change:
    """One value that differs from the last start's."""

    field: str  # "section.key"
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field}: was {self.was!r}, now {self.now!r}"


def check_names(allowed: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raises UserError for a field that no config has; `allowed` names keys ("train.steps") or sections ("optim")."""
    known = {*config, *flat(config)}
    for name in allowed:
        if name not in known:
            raise unknown_name("field of --allow-change", name, known)


def of_config(
    folder: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    allowed: Sequence[str],
    free: Sequence[str] = (),
) -> tuple[Change, ...]:
    """The differences of two configs; UserError naming all that are neither FREE, nor `free` here, nor allowed."""
    before, after = flat(old), flat(new)
    found = tuple(
        Change(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name != "data.path"
    )
    refused = [
        c
        for c in found
        if not c.field.startswith(FREE) and not is_allowed(c.field, (*allowed, *free))
    ]
    if refused:
        raise UserError(
            f"{folder} holds a run with another config; {_listed(refused)}. "
            "Resume it with pretrain --workdir alone, choose another --workdir, or go on with the change by "
            + " ".join(f"--allow-change {c.field}" for c in refused)
        )
    return found


def by_hand(
    path: Path,
    record: Mapping[str, Any],
    step: int,
    saved: Mapping[str, Any],
    allowed: Sequence[str] = (),
) -> tuple[Change, ...]:
    """The allowed differences between a run's record and what its checkpoint of `step` was saved under.

    Both hold a `config` and `data`, the record also the `changes` that starts of the run made. UserError names all
    other differences that are not FREE: somebody edited the file at `path`.
    """
    made = {(c["field"], _key(c["now"])) for c in record.get("changes") or []}
    was, now = _fields(saved), _fields(record)
    found = tuple(
        Change(name, was[name], now[name])
        for name in sorted(was.keys() & now.keys())
        if _key(was[name]) != _key(now[name])
        and not name.startswith(FREE)
        and (name, _key(now[name])) not in made
    )
    refused = [c for c in found if not is_allowed(c.field, allowed)]
    if refused:
        raise UserError(
            f"{path} was edited: it differs from what the checkpoint of step {step} was saved under; "
            f"{_listed(refused)}. Restore the values; to change a run, give pretrain --config.KEY=VALUE and "
            + " ".join(
                f"--allow-change {c.field.partition('.')[0] if _is_of_data(c) else c.field}"
                for c in refused
            )
        )
    return found


def of_data(
    folder: Path,
    path: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    allowed: Sequence[str],
) -> tuple[Change, ...]:
    """The differences of two data records; UserError unless there are none or the data may change."""
    found = tuple(Change(f"{DATA}.{k}", old.get(k), new[k]) for k in new if old.get(k) != new[k])
    fixed = [c for c in found if c.field.removeprefix(f"{DATA}.") in _NEVER]
    if found and (fixed or not is_allowed("data.path", allowed)):
        way_out = (
            ""
            if fixed
            else f", or go on with other data of this tokenizer by --allow-change {DATA}"
        )
        raise UserError(
            f"{path} is not the data that the run in {folder} was started on; {_listed(found)}. "
            f"Point --config.data.path at the original folder, choose another --workdir{way_out}"
        )
    return found


def _fields(of: Mapping[str, Any]) -> dict[str, Any]:
    """Config and data by the names that a Change has."""
    config, data = of.get("config") or {}, of.get("data") or {}
    return flat(config) | {f"{DATA}.{name}": value for name, value in data.items()}


def _key(value: Any) -> str:
    """Equal for values that mean the same; where the data of a phase lie means nothing."""
    if isinstance(value, list | tuple):
        phases = [
            {k: v for k, v in p.items() if k != "path"} if isinstance(p, Mapping) else p
            for p in value
        ]
        return json.dumps(phases, sort_keys=True)
    return json.dumps(value, sort_keys=True)


def _is_of_data(change: Change) -> bool:
    return change.field.startswith(f"{DATA}.")


def is_allowed(field: str, allowed: Sequence[str]) -> bool:
    """Whether `allowed`, keys and sections, has this field."""
    return any(field == name or field.startswith(f"{name}.") for name in allowed)


def _listed(changes: Iterable[Change]) -> str:
    return "; ".join(map(str, changes))
