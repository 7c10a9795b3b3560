"""Rows of TSV, CSV, JSON-lines and Parquet files by column name, each with the line it is on."""

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from electra_jax.spec import UserError, nearest
from electra_jax.tasks.files import parquetfiles
from electra_jax.text.sources import datasets, streams

Row = dict[str, Any]  # column -> text; of JSON and Parquet, any value
_JSON = (".json", ".jsonl", ".ndjson")
_CSV = (".csv",)
_HEADER = " (Line 1 was read as the header: if it is data, put a line of column names above it)"
_LONGEST_FIELD = (
    1 << 27
)  # of a CSV, in characters; Python's own limit, 128 Ki, is less than a long document


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # JSON's way to write half a character


class Nested(Row):
    """A row with objects in it: the column `a.b` is the value b of the object a, through lists, too."""

    def __missing__(self, path: str) -> Any:
        value: Any = dict(self)
        for key in path.split("."):
            value = _inside(value, key)
        return value

    def __contains__(self, path: object) -> bool:
        if super().__contains__(path):
            return True
        try:
            return isinstance(path, str) and "." in path and self[path] is not self
        except KeyError:
            return False


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, list) and value:
        return [_inside(item, key) for item in value]
    if isinstance(value, dict) and key in value:
        return value[key]
    raise KeyError(key)


def suffix(path: str) -> str:
    """The suffix that says the format, without that of a compression."""
    return streams.split_suffix(path)[0]


def is_json(path: str) -> bool:
    """Whether the name says JSON, compressed or not."""
    return suffix(path) in _JSON


def has_lists(path: str) -> bool:
    """Whether the rows hold lists and objects: JSON, Parquet, data sets; the rest is text."""
    return is_json(path) or parquetfiles.is_parquet(path) or datasets.is_name(path)


def rows(
    path: str, columns: Sequence[str] = (), broken: list[str] | None = None
) -> Iterator[tuple[int, Row]]:
    """Yields (line, row) of a table, in order.

    A `tfds:` name gives its records, by number. By its suffix a file is CSV (quoted as usual), JSON
    (an object a line, or one array of objects), Parquet (the line is the row's number) or else TSV,
    in which quote characters are text, as in GLUE. `columns` names the columns of a file without a
    header line. Rows of another number of columns raise UserError, or are left out and told to
    `broken` where that is given.
    """
    if datasets.is_name(path):
        yield from ((number, Nested(row)) for number, row in enumerate(datasets.records(path)))
        return
    if parquetfiles.is_parquet(path):
        yield from ((number, Nested(row)) for number, row in parquetfiles.records(path))
        return
    if is_json(path):
        yield from _json_rows(path)
        return
    lines = _csv_rows(path) if suffix(path) in _CSV else _tsv_rows(path)
    header = list(columns)
    if not header:
        first = next(lines, None)
        if first is None:
            raise UserError(f"{path} is empty; expected a header line and rows")
        header = first[1]
        twice = sorted({name for name in header if header.count(name) > 1 and name})
        if twice:
            raise UserError(f"{path}:1: the header names {_brief(twice[0])} twice.{_HEADER}")
    empty = True
    for line, values in lines:
        empty = False
        if len(values) == len(header):
            yield line, dict(zip(header, values, strict=True))
            continue
        said = (
            f"{path}:{line}: found {len(values)} columns; expected {len(header)}: "
            f"{', '.join(header)}"
        )
        if broken is None:
            raise UserError(said)
        broken.append(said)
    if empty:
        raise UserError(f"{path} has no rows")


def first_row(path: str) -> list[str]:
    """The columns of the first line of a text file: its header, if it has one."""
    lines = _csv_rows(path) if suffix(path) in _CSV else _tsv_rows(path)
    return next(lines, (0, []))[1]


def numbered(path: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, without line ends."""
    if parquetfiles.is_parquet(path):
        raise UserError(f"{path} is a Parquet file; expected text or JSON in this task's layout")
    parts = itertools.chain.from_iterable(streams.lines(path))
    return ((number, line.removesuffix("\r")) for number, line in enumerate(parts, 1))


def objects(path: str) -> Iterator[tuple[int, Row]]:
    """(line, object) of JSON lines. Raises UserError for what is no JSON object."""
    for number, line in numbered(path):
        if not line or line.isspace():
            continue
        row = parsed(path, line, number, "; expected one JSON object a line")
        if not isinstance(row, dict):
            raise UserError(
                f"{path}:{number}: found a {type(row).__name__}; expected a JSON object"
            )
        yield number, Nested(row)


def document(path: str) -> Any:
    """The content of a file that is one JSON value."""
    return parsed(path, "\n".join(line for _, line in numbered(path)))


def parsed(
    path: str,
    text: str,
    line: int = 1,
    hint: str = "",
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The JSON value that `text`, which begins on `line`, is; `pairs` makes its objects, if given.

    Half a surrogate pair, which is no character, is read as U+FFFD. Raises UserError, with the line
    and `hint`, for what is not JSON, and for JSON that Python does not hold: nested some thousand
    deep, or a number of more than 4,300 digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
        return _whole(value) if _SURROGATE.search(text) else value
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{line + error.lineno - 1}: not JSON at column {error.colno} ({error.msg}){hint}"
        ) from None
    except RecursionError:
        raise UserError(f"{path}:{line}: the JSON is nested too deep to be read{hint}") from None
    except ValueError:
        raise UserError(
            f"{path}:{line}: a number in the JSON has too many digits to be read; write long ones "
            "as texts"
        ) from None


def _whole(value: Any) -> Any:
    """The JSON value with U+FFFD for halves of surrogate pairs."""
    if isinstance(value, str):
        return datasets.whole(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {datasets.whole(key): _whole(item) for key, item in value.items()}
    return value


def column(path: str, row: Row, names: Sequence[str], flag: str = "") -> str:
    """The first of `names` that the row has. Raises UserError, with the nearest, for none."""
    for name in names:
        if name in row:
            return name
    there = [key for name, value in row.items() for key in (name, *_within(name, value))]
    guess = nearest(names[0], there)
    hint = f" Did you mean {guess!r}?" if guess else ""
    also = f" (or {', '.join(map(repr, names[1:]))})" if len(names) > 1 else ""
    fix = f" (Of a file of your own, name it with {flag})" if flag else ""
    if not isinstance(row, Nested):
        fix += _HEADER
        if len(row) == 1:
            fix += " (There is one column: a .csv is divided at commas, other files at tabs)"
    shown = ", ".join(map(_brief, there))
    raise UserError(f"{path}: no column {names[0]!r}{also}.{hint} Found: {shown}.{fix}")


def _brief(key: str) -> str:
    """A column's name in a message; of a line of data it may be a long text."""
    return repr(key if len(key) < 60 else f"{key[:57]}...")


def _within(name: str, value: Any) -> list[str]:
    """The paths of the values in an object, or in the objects of a list."""
    if isinstance(value, list) and value:
        value = value[0]
    return [f"{name}.{key}" for key in value] if isinstance(value, dict) else []


def _json_rows(path: str) -> Iterator[tuple[int, Row]]:
    opening = next((line for _, line in numbered(path) if line.strip()), "")
    if not opening.lstrip().startswith("["):
        yield from objects(path)
        return
    for number, row in enumerate(document(path), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {number} is a {type(row).__name__}; expected an object")
        yield number, Nested(row)


def _tsv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in numbered(path) if line)


def _csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader((line + "\n" for _, line in numbered(path)), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{path}:{line}: not CSV: {error}") from None
        if values is None:
            return
        if values:
            yield line, values
