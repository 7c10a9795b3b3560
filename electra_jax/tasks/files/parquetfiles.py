"""Rows of Parquet files as plain values; classes that the `datasets` library numbered have their names."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from electra_jax.spec import UserError
from electra_jax.text.sources import streams

_AT_ONCE = 256  # rows


def is_parquet(path: str) -> bool:
    """Whether the name says Parquet, compressed or not."""
    return streams.split_suffix(path)[0] == ".parquet"


def records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) in order: texts, numbers, lists, objects, None for null.

    Raises UserError for a damaged file, an empty one, and bytes that are not UTF-8.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "reading .parquet needs the pyarrow package: pip install 'electra-jax[parquet]'"
        ) from None
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; expected a Parquet file. Name one of its files")
    packed = streams.split_suffix(path)[1] != ""
    number = 0
    try:
        with tempfile.TemporaryFile() if packed else open(path, "rb") as source:
            if packed:  # Parquet is read from its end: unpack it to a nameless file
                for block in streams.blocks(path):
                    source.write(block)
                source.seek(0)
            file = pq.ParquetFile(source)
            named = _classes(file.schema_arrow.metadata or {})
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    values = _texts(row)
                    yield number, {key: named.get(key, _same)(values[key]) for key in values}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a text near row {number} is not UTF-8: {error}") from None
    except (pa.ArrowException, OSError) as error:
        what = str(error).partition("\n")[0]
        raise UserError(f"{path} is no readable Parquet file after row {number}: {what}") from None
    if not number:
        raise UserError(f"{path} has no rows")


def _texts(value: Any) -> Any:
    """The value with bytes as texts."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    return value


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, Callable[[Any], Any]]:
    """Column -> from numbers to names, for the columns that `datasets` wrote as ClassLabel."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    found = {key: _names(feature) for key, feature in features.items()}
    return {key: _named(names) for key, names in found.items() if names}


def _same(value: Any) -> Any:
    return value


def _names(feature: Any) -> list[str] | None:
    """The class names of a ClassLabel, alone or in a list."""
    while isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if texts else None


def _named(names: list[str]) -> Callable[[Any], Any]:
    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(item) for item in value]
        known = type(value) is int and 0 <= value < len(names)
        return names[value] if known else value

    return name
