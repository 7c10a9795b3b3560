"""The texts of a Parquet file's column, in flat memory."""

import collections
import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

from electra_jax.spec import UserError
from electra_jax.text.sources import stored, streams
from electra_jax.text.sources.streams import Consumed

# Without a buffer pyarrow holds the column of a whole row group.
_BUFFER = 1 << 20


def rows(path: str, text_key: str) -> int:
    """How many rows the file has. Raises UserError unless it has a column of texts `text_key`."""
    with _opened(path, text_key) as file:
        return file.metadata.num_rows


def texts(
    path: str,
    text_key: str,
    consumed: Consumed | None,
    skipped: "collections.Counter[str]",
    within: tuple[int, int] | None = None,
) -> Iterator[str]:
    """Yields the column's texts (strings, or bytes that are UTF-8); nulls are counted in `skipped`.

    Of row groups that begin `within` these stored bytes (None: all).
    """
    row = 0
    with _opened(path, text_key) as file:
        import pyarrow as pa  # present: the line above needs it

        try:
            for batch in file.iter_batches(
                batch_size=256, columns=[text_key], row_groups=_groups(file.metadata, within)
            ):
                for text in batch.column(0).to_pylist():
                    if text is None:
                        skipped["null_texts"] += 1
                    else:
                        yield text if isinstance(text, str) else text.decode("utf-8")
                    row += 1
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: a text at row {row} or soon after is not UTF-8: {error}"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is damaged near row {row}: {error}") from None
    if consumed is not None:
        consumed(stored.sizes([path])[path])


def _groups(metadata: Any, within: tuple[int, int] | None) -> list[int]:
    """The row groups whose first page lies in [start, stop)."""
    groups = range(metadata.num_row_groups)
    if within is None:
        return list(groups)
    columns = [metadata.row_group(group).column(0) for group in groups]
    starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
    return [group for group in groups if within[0] <= starts[group] < within[1]]


@contextlib.contextmanager
def _opened(path: str, text_key: str) -> Iterator[Any]:  # of pyarrow.parquet.ParquetFile
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "reading .parquet needs the pyarrow package: pip install 'electra-jax[parquet]'"
        ) from None
    packed = streams.split_suffix(path)[1] != ""
    with tempfile.TemporaryFile() if packed else stored.opened(path) as source:
        if packed:  # Parquet is read from its end: unpack it to a nameless file
            for block in streams.blocks(path):
                source.write(block)
            source.seek(0)
        try:
            file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable Parquet file: {error}") from None
        _check_column(path, text_key, file.schema_arrow)
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
    known = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_null,
    )
    if not any(is_kind(value) for is_kind in known):
        raise UserError(f"{path}: column {text_key!r} is of type {kind}; expected string")
