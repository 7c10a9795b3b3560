"""Texts and records of prepared TFDS data sets, read by number without TensorFlow."""

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from electra_jax.spec import UserError

PREFIX = "tfds:"
_AT_ONCE = 256  # records fetched together
_USE = "write tfds:NAME[/config][:version][:split], for example tfds:wiki40b/en:train"


def is_name(path: str) -> bool:
    """Whether `path` names a TFDS data set (`tfds:...`), not a file."""
    return path.startswith(PREFIX)


def check(name: str, text_key: str) -> None:
    """Raises UserError unless the data set is prepared, ArrayRecord, and has a text `text_key`."""
    _check_text(name, _open(name)[1], text_key)


def texts(name: str, text_key: str) -> Iterator[str]:
    """Yields the field `text_key` of the data set's records, in the order of their numbers."""
    source, fields = _open(name)
    _check_text(name, fields, text_key)
    for number, record in _numbered(name, source):
        text = record[text_key]
        if text is None:
            raise UserError(f"{name} is cut short: record {number} cannot be read")
        try:
            yield text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}: record {number} is not UTF-8 at byte {error.start} of {text_key!r}"
            ) from None


def files(name: str) -> list[str]:
    """The files that hold the data set's records."""
    builder, split = _builder(name)
    return [str(path) for path in builder.info.splits[split].filepaths]


def records(name: str) -> Iterator[dict[str, Any]]:
    """Yields the data set's records as plain values: texts, numbers, names of classes, lists."""
    source, fields = _open(name)
    for number, record in _numbered(name, source):
        try:
            yield {key: _plain(feature, record[key]) for key, feature in fields.items()}
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}: record {number} is not UTF-8 at byte {error.start} of a text"
            ) from None


def whole(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _numbered(name: str, source: Any) -> Iterator[tuple[int, Any]]:
    """(number, record) of a data source, many fetched together."""
    for start in range(0, len(source), _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, len(source)))
        try:
            found = source.__getitems__(list(numbers))
        except RuntimeError as error:  # what ArrayRecord raises
            raise UserError(f"{name} is damaged: {_first_line(error)}") from None
        yield from zip(numbers, found, strict=True)


def _plain(feature: Any, value: Any) -> Any:
    """A value of a record without numpy, bytes or the numbers of classes."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        return {key: _plain(inner, value[key]) for key, inner in feature.items()}
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict):
            return {key: [_plain(f, v) for v in value[key]] for key, f in inner.items()}
        return [_plain(inner, item) for item in value]
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value)) if value >= 0 else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return np.asarray(value).tolist()


def _check_text(name: str, fields: dict[str, Any], text_key: str) -> None:
    import tensorflow_datasets as tfds

    if text_key not in fields:
        known = ", ".join(map(repr, fields)) or "none"
        raise UserError(
            f"{name}: no field {text_key!r}; fields found: {known}. Name it with --text-key"
        )
    if not isinstance(kind := fields[text_key], tfds.features.Text):
        raise UserError(f"{name}: field {text_key!r} is {kind}; expected Text")


def _open(name: str) -> tuple[Any, dict[str, Any]]:
    """The data source (len() and __getitems__()) and the fields of its records."""
    import tensorflow_datasets as tfds

    builder, split = _builder(name)
    found = builder.info.file_format
    if found != tfds.core.FileFormat.ARRAY_RECORD:
        folder = str(builder.data_path).rstrip("/")
        raise UserError(
            f"{name} is stored as {found.value}, which cannot be read by record number; convert it "
            f"(this needs TensorFlow): tfds convert_format --dataset_dir={folder} "
            f"--out_file_format=array_record --out_dir={folder}-array_record, then use "
            f"tfds:{folder}-array_record"
        )
    features = builder.info.features
    fields = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    if split not in builder.info.splits:
        raise UserError(
            f"{name}: no split {split!r}; splits found: {', '.join(builder.info.splits)}"
        )
    shards = builder.info.splits[split].filepaths
    missing = [str(path) for path in shards if not path.exists()]
    if missing:
        raise UserError(
            f"{name} is not complete: {len(missing)} of the {len(shards)} files of its split "
            f"{split} are missing, the first is {missing[0]}"
        )
    return builder.as_data_source(split=split), fields


def _builder(name: str) -> tuple[Any, str]:
    """The read-only builder and the split that `name` asks for (train unless said)."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    what, *options = name[len(PREFIX) :].split(":")
    versions = [option for option in options if re.fullmatch(r"\d+\.\d+\.\d+", option)]
    splits = [option for option in options if option not in versions]
    if not what or len(versions) > 1 or len(splits) > 1 or "" in splits:
        raise UserError(f"input {name!r} is no data set name; {_USE}")
    split = splits[0] if splits else "train"
    try:
        if os.path.isdir(what):
            return tfds.builder_from_directory(what), split
        # TFDS looks at the variable once, when it is imported.
        folder = os.environ.get("TFDS_DATA_DIR")
        found = read_only_builder.builder_from_files(":".join((what, *versions)), data_dir=folder)
        return found, split
    except (ValueError, OSError) as error:  # not found, an unknown layout, an unreadable file
        raise UserError(
            f"{name} was not found among prepared data sets: {_first_line(error)} ({_USE}; "
            "TFDS_DATA_DIR names the folder that holds them; this program does not download)"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
