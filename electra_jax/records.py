"""JSON that a hand or a disk may have changed: parsed, and checked by type and range, or refused in one line."""

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError

# More than any model or data set has, and few enough that sums and products of them stay harmless.
MOST = 2**40


@dataclass(frozen=True)
class Whole:
    """The kind of a field that is a whole number from `least` to `most`."""

    least: int = 0
    most: int = MOST

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True)
class Name:
    """The kind of a field that names a file or folder inside another: no path, no way out."""

    def __str__(self) -> str:
        return "the name of a file inside the folder"


@dataclass(frozen=True)
class Like:
    """The kind of a field that is a text of a form, a regular expression for the whole of it."""

    pattern: str

    def __str__(self) -> str:
        return f"a text like {self.pattern}"


def read(path: str | Path, fix: str = "") -> dict[str, Any]:
    """The JSON object in a file; UserError in one line, with `fix` at its end, for anything else that is there."""
    return parse_object(Path(path).read_bytes(), path, fix)


def parse_object(text: str | bytes, where: str | Path, fix: str = "") -> dict[str, Any]:
    """`parse` for what must be an object."""
    found = parse(text, where, fix)
    if not isinstance(found, dict):
        raise UserError(
            f"{where} holds a {type(found).__name__}; expected a JSON object{_tail(fix)}"
        )
    return found


def parse(text: str | bytes, where: str | Path, fix: str = "") -> Any:
    """Any JSON value; UserError for what is not UTF-8 or JSON, nested too deep, or holds thousands of digits."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError:
        raise UserError(f"{where} is nested too deep for JSON of any use{_tail(fix)}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}{_tail(fix)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 at byte {error.start}{_tail(fix)}") from None
    except ValueError:  # Python's limit of digits
        raise UserError(f"{where} has a number of thousands of digits{_tail(fix)}") from None


def check(found: Any, kinds: Mapping[str, Any], where: str | Path, fix: str = "") -> dict[str, Any]:
    """`found` itself, an object that has every field of `kinds` with its kind. UserError lists all that is wrong.

    A kind is a type (`float` takes whole numbers, too, and nothing infinite), `list[...]` and `dict[str, ...]` of one,
    a union, `Any`, `Whole(least, most)`, `Like(pattern)` or `Name()`. A union with None lets the field be absent.
    Fields that are not named are left alone.
    """
    if not isinstance(found, dict):
        raise UserError(
            f"{where} holds a {type(found).__name__}; expected a JSON object{_tail(fix)}"
        )
    wrong = []
    for name, kind in kinds.items():
        if name not in found and type(None) not in typing.get_args(kind):
            wrong.append(f"{name} is missing")
        elif (said := _complaint(found.get(name), kind)) is not None:
            wrong.append(f"{name}{said}")
    if wrong:
        raise UserError(f"{where} is damaged: {'; '.join(wrong)}{_tail(fix)}")
    return found


def _complaint(value: Any, kind: Any) -> str | None:
    """What is wrong with a value, to be read after its name; None where nothing is."""
    if isinstance(kind, Whole | Name | Like):  # most fields, of tens of thousands of shards
        return None if _fits(value, kind) else f" is {short(value)}, expected {_title(kind)}"
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        said = [_complaint(value, one) for one in inside]
        return None if None in said else said[0]
    if kind is Any:
        return None
    if origin is list and isinstance(value, list):
        return _first(enumerate(value), inside[0])
    if origin is dict and isinstance(value, dict):
        return _first(value.items(), inside[1])
    return None if _fits(value, kind) else f" is {short(value)}, expected {_title(kind)}"


def _first(items: typing.Iterable[tuple[Any, Any]], kind: Any) -> str | None:
    for key, value in items:
        if (said := _complaint(value, kind)) is not None:
            return f"[{key!r}]{said}"
    return None


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, Whole):
        return type(value) is int and kind.least <= value <= kind.most
    if isinstance(kind, Name):
        inside = isinstance(value, str) and value not in ("", ".", "..")
        return inside and not any(sign in value for sign in "/\\\0")
    if isinstance(kind, Like):
        return isinstance(value, str) and re.fullmatch(kind.pattern, value) is not None
    if kind is float:
        return type(value) in (int, float) and abs(value) <= 1e300 and math.isfinite(value)
    return isinstance(kind, type) and type(value) is kind


def _title(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def short(value: Any) -> str:
    """A value as it may stand in one line of an error."""
    if isinstance(value, (dict, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than thirty digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _tail(fix: str) -> str:
    return f"; {fix}" if fix else ""
