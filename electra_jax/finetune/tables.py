"""Rows of TSV, CSV and JSON-lines files by column name, each with the line it is on."""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from electra_jax.spec import UserError, nearest
from electra_jax.text import datasets, streams

Row = dict[str, Any]  # column -> text; of JSON, any value
_JSON = (".json", ".jsonl", ".ndjson")
_CSV = (".csv",)
_LONGEST_FIELD = (
    1 << 27
)  # of a CSV, in characters; Python's own limit, 128 Ki, is less than a long document


def is_json(path: str) -> bool:
    """Whether the name says JSON, compressed or not."""
    return streams.split_suffix(path)[0] in _JSON


def rows(
    path: str, columns: Sequence[str] = (), broken: list[str] | None = None
) -> Iterator[tuple[int, Row]]:
    """Yields (line, row) of a table, in order.

    A `tfds:` name gives its records, by number. By its suffix a file is CSV (quoted as usual), JSON
    (an object a line, or one array of objects) or else TSV, in which quote characters are text, as
    in GLUE. `columns` names the columns of a file without a header line. Rows of another number of
    columns raise UserError, or are left out and told to `broken` where that is given.
    """
    if datasets.is_name(path):
        yield from enumerate(datasets.records(path))
        return
    if is_json(path):
        yield from _json_rows(path)
        return
    lines = _csv_rows(path) if streams.split_suffix(path)[0] in _CSV else _tsv_rows(path)
    header = list(columns)
    if not header:
        first = next(lines, None)
        if first is None:
            raise UserError(f"{path} is empty; expected a header line and rows")
        header = first[1]
        twice = sorted({name for name in header if header.count(name) > 1 and name})
        if twice:
            raise UserError(f"{path}:1: the header names {twice[0]!r} twice")
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


def numbered(path: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, without line ends."""
    parts = itertools.chain.from_iterable(streams.lines(path))
    return ((number, line.removesuffix("\r")) for number, line in enumerate(parts, 1))


def objects(path: str) -> Iterator[tuple[int, Row]]:
    """(line, object) of JSON lines. Raises UserError for what is no JSON object."""
    for number, line in numbered(path):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: not JSON at column {error.colno} ({error.msg}); expected one "
                "JSON object a line"
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f"{path}:{number}: found a {type(row).__name__}; expected a JSON object"
            )
        yield number, row


def document(path: str) -> Any:
    """The content of a file that is one JSON value."""
    text = "\n".join(line for part in streams.lines(path) for line in part)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not JSON at column {error.colno} ({error.msg})"
        ) from None


def column(path: str, row: Row, names: Sequence[str], flag: str = "") -> str:
    """The first of `names` that the row has. Raises UserError, with the nearest, for none."""
    for name in names:
        if name in row:
            return name
    guess = nearest(names[0], row)
    hint = f" Did you mean {guess!r}?" if guess else ""
    also = f" (or {', '.join(map(repr, names[1:]))})" if len(names) > 1 else ""
    fix = f" (Of a file of your own, name it with {flag})" if flag else ""
    raise UserError(
        f"{path}: no column {names[0]!r}{also}.{hint} Found: {', '.join(map(repr, row))}.{fix}"
    )


def _json_rows(path: str) -> Iterator[tuple[int, Row]]:
    opening = next((line for _, line in numbered(path) if line.strip()), "")
    if not opening.lstrip().startswith("["):
        yield from objects(path)
        return
    for number, row in enumerate(document(path), 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {number} is a {type(row).__name__}; expected an object")
        yield number, row


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
