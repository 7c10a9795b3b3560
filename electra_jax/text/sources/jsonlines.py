"""JSON lines: an object a line, each a document's text under a key."""

import collections
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from electra_jax.spec import UserError
from electra_jax.text.sources import datasets, markup

# What an object must begin with, and how many lines of a file without a telling name are looked at.
_LOOKED_AT = 10


def parse(where: str, line: str) -> Any:
    """The value of one line. Raises UserError, naming `where` ("file:line"), for what is not JSON.

    Numbers of more digits than Python takes are read as floats.
    """
    try:
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python's limit on the digits of integers
            return json.loads(line, parse_int=float)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON at column {error.colno} ({error.msg}); expected one JSON object a line"
        ) from None
    except RecursionError:
        raise UserError(
            f"{where}: its values are nested too deeply to be read; expected a JSON object with a text"
        ) from None


def looks_like(lines: Iterable[str]) -> bool:
    """Whether a file begins as JSON lines: each of its first lines with text is an object."""
    told = (line for line in lines if line and not line.isspace())
    opening = list(itertools.islice(told, _LOOKED_AT))
    return bool(opening) and all(map(_is_object, opening))


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse("", line), dict)
    except UserError:
        return False


def texts(
    path: str, text_key: str, lines: Iterable[str], skipped: "collections.Counter[str]"
) -> Iterator[str]:
    """Yields the text of every line's object; null is counted in `skipped` as "null_texts".

    Of an article as WikiExtractor writes it (`markup.from_record`) the title comes first.
    """
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        where = f"{path}:{number}"
        record = parse(where, line)
        text = _field(where, record, text_key)
        if text is None:
            skipped["null_texts"] += 1
            continue
        if text_key == "text" and markup.is_record(record):
            text = markup.from_record(record)
            if text is None:
                skipped["empty_articles"] += 1
                continue
        # JSON may carry half a surrogate pair, which no UTF-8 encoder takes.
        yield datasets.whole(text) if "\\ud" in line or "\\uD" in line else text


def _field(where: str, record: object, text_key: str) -> str | None:
    if not isinstance(record, dict):
        raise UserError(f"{where}: found a {type(record).__name__}; expected a JSON object")
    if text_key not in record:
        keys = ", ".join(map(repr, record)) or "none"
        raise UserError(
            f"{where}: no key {text_key!r}; keys found: {keys}. Name the right one with --text-key"
        )
    text = record[text_key]
    if not isinstance(text, str | None):
        raise UserError(f"{where}: {text_key!r} is {json.dumps(text)[:40]}; expected a string")
    return text
