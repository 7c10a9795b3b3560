"""Corpora as documents: text, JSON lines, Parquet (each may be compressed) and TFDS data sets.

A document is a list of paragraphs: strings without line feeds, stripped, never empty. In a text
file a paragraph is a line and a blank line ends the document; a document never spans files. In the
other formats a record is a document and its lines are the paragraphs.

`expand` turns patterns into paths, `check` refuses what sizes, names and openings show to be
wrong, `read` streams documents in flat memory and raises UserError at the byte, line or row where
the content is at fault.
"""

import contextlib
import glob
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from electra_jax.spec import UserError
from electra_jax.text import datasets, streams
from electra_jax.text.streams import Consumed

Document = list[str]

_TEXT, _JSON, _PARQUET = (".txt", ".text", ""), (".jsonl", ".ndjson"), (".parquet",)


def expand(patterns: Sequence[str]) -> list[str]:
    """The paths that `patterns` name: globs are expanded, `tfds:` names passed on; sorted, unique.

    Raises UserError for a pattern that matches no file.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found: dict[str, str] = {}  # absolute path -> path as given, so that a/b and ./a/b are one
    for pattern in patterns:
        if datasets.is_name(pattern):
            found[pattern] = pattern
            continue
        paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        files = [path for path in paths if not os.path.isdir(path)]
        if not files:
            raise _no_match(pattern, paths)
        for path in files:
            found.setdefault(os.path.abspath(path), path)
    if not found:
        raise UserError("no input was given; name files, for example --input 'corpus/*.txt.gz'")
    return sorted(found.values())


def check(paths: Sequence[str], text_key: str = "text") -> None:
    """Raises UserError for what can be known before the work starts.

    Looked at: that a file is there, may be read, is not empty, has a known suffix whose reader is
    installed, that its first block is UTF-8 text, and that its first record has the field
    `text_key`.
    """
    for path in paths:
        if datasets.is_name(path):
            datasets.check(path, text_key)
            continue
        if not os.path.exists(path):
            raise UserError(f"input {path} does not exist")
        if os.path.isdir(path):
            raise _no_match(path, [path])
        kind = _kind(path)
        if os.path.getsize(path) == 0:
            raise _empty(path)
        if kind in _PARQUET:
            with _parquet_file(path, text_key):
                continue
        opening = list(itertools.islice(streams.lines(path), 2))  # of a short file, all
        if not opening:
            raise _empty(path)
        if kind in _JSON:
            next(_json_texts(path, text_key, iter(opening)), None)


def size(paths: Sequence[str]) -> int:
    """The bytes stored under `paths` (what `read` reports as consumed); data sets count as 0."""
    return sum(os.path.getsize(path) for path in paths if not datasets.is_name(path))


def read(
    path: str, text_key: str = "text", start: int = 0, consumed: Consumed | None = None
) -> Iterator[Document]:
    """Yields the documents of one path of `expand`, from number `start` on.

    `consumed` is called with the count of stored bytes as they are read (for a progress line).
    Raises UserError where content is at fault, and for a file without a single document.
    """
    if datasets.is_name(path):
        documents = _split(datasets.texts(path, text_key))
    elif (kind := _kind(path)) in _PARQUET:
        documents = _split(_parquet_texts(path, text_key, consumed))
    elif kind in _JSON:
        documents = _split(_json_texts(path, text_key, streams.lines(path, consumed)))
    else:
        documents = _paragraphs(streams.lines(path, consumed))
    first = next(documents, None)
    if first is None:
        raise _empty(path)
    yield from itertools.islice(itertools.chain((first,), documents), start, None)


def _kind(path: str) -> str:
    kind = streams.split_suffix(path)[0]
    if kind in (*_TEXT, *_JSON, *_PARQUET):
        return kind
    raise UserError(
        f"input {path} has the suffix {kind!r}; expected .txt (a paragraph a line, a blank line "
        "between documents), .jsonl or .parquet, each also .gz, .zst or .bz2, or tfds:NAME"
    )


def _no_match(pattern: str, paths: Sequence[str]) -> UserError:
    if pattern.startswith("gs://"):
        return UserError(
            f"input {pattern!r}: text is read from disks; copy it (gcloud storage cp) or mount the "
            "bucket (gcsfuse)"
        )
    if paths:
        return UserError(
            f"input {pattern!r} names folders, no file; name the files, for example "
            f"'{os.path.join(pattern.rstrip('/*'), '*.txt.gz')}'"
        )
    return UserError(f"input {pattern!r} matches no file (current folder: {os.getcwd()})")


def _empty(path: str) -> UserError:
    return UserError(f"input {path} is empty: it holds no text; remove it from the inputs")


def _paragraphs(parts: Iterator[list[str]]) -> Iterator[Document]:
    document: Document = []
    for part in parts:
        for line in part:
            if line := line.strip():
                document.append(line)
            elif document:
                yield document
                document = []
    if document:
        yield document


def _split(texts: Iterator[str]) -> Iterator[Document]:
    for text in texts:
        if document := [line for part in text.split("\n") if (line := part.strip())]:
            yield document


def _json_texts(path: str, text_key: str, parts: Iterator[list[str]]) -> Iterator[str]:
    number = 0
    for part in parts:
        for line in part:
            number += 1
            if not line or line.isspace():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path}:{number}: not JSON at column {error.colno} ({error.msg}); expected "
                    "one JSON object a line"
                ) from None
            text = _field(f"{path}:{number}", record, text_key)
            # JSON may carry half a surrogate pair, which no UTF-8 encoder takes.
            yield datasets.whole(text) if "\\ud" in line or "\\uD" in line else text


def _field(where: str, record: object, text_key: str) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{where}: found a {type(record).__name__}; expected a JSON object")
    if text_key not in record:
        keys = ", ".join(map(repr, record)) or "none"
        raise UserError(
            f"{where}: no key {text_key!r}; keys found: {keys}. Name the right one with --text-key"
        )
    text = record[text_key]
    if not isinstance(text, str):
        raise UserError(f"{where}: {text_key!r} is {json.dumps(text)[:40]}; expected a string")
    return text


@contextlib.contextmanager
def _parquet_file(path: str, text_key: str) -> Iterator[Any]:  # of pyarrow.parquet.ParquetFile
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "reading .parquet needs the pyarrow package: pip install 'electra-jax[parquet]'"
        ) from None
    packed = streams.split_suffix(path)[1] != ""
    with tempfile.TemporaryFile() if packed else open(path, "rb") as source:
        if packed:  # Parquet is read from its end: unpack it to a nameless file
            for block in streams.blocks(path):
                source.write(block)
            source.seek(0)
        try:
            file = pq.ParquetFile(source)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {error}") from None
        _check_column(path, text_key, file.schema_arrow)
        if file.metadata.num_rows == 0:
            raise _empty(path)
        yield file


def _check_column(path: str, text_key: str, schema: Any) -> None:
    from pyarrow import types

    if text_key not in schema.names:
        raise UserError(
            f"{path}: no column {text_key!r}; columns found: {', '.join(map(repr, schema.names))}. "
            "Name the right one with --text-key"
        )
    kind = schema.field(text_key).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(value) or types.is_large_string(value)):
        raise UserError(f"{path}: column {text_key!r} is of type {kind}; expected string")


def _parquet_texts(path: str, text_key: str, consumed: Consumed | None) -> Iterator[str]:
    row = 0
    with _parquet_file(path, text_key) as file:
        import pyarrow as pa  # present: the line above needs it

        try:
            for batch in file.iter_batches(batch_size=256, columns=[text_key]):
                for text in batch.column(0).to_pylist():
                    if text is None:
                        raise UserError(
                            f"{path}: row {row} (counted from 0) has null in {text_key!r}; "
                            "expected a string"
                        )
                    yield text
                    row += 1
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: a text at row {row} or soon after is not UTF-8: {error}"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is damaged near row {row}: {error}") from None
    if consumed is not None:
        consumed(os.path.getsize(path))
