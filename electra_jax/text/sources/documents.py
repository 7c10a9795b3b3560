"""Corpora as documents: text, WikiExtractor's output, JSON lines, Parquet (each may be compressed), TFDS data sets.

A document is a list of paragraphs: strings without line feeds, stripped, never empty. In a text
file a paragraph is a line and a blank line ends the document; a document never spans files. In the
other formats an article or record is a document and its lines are the paragraphs. With `join_lines`
a paragraph is what stands between blank lines, for text that was wrapped at a width.

`expand` turns patterns into paths, `check` refuses what sizes, names and openings show to be
wrong, `read` streams documents in flat memory and raises UserError at the byte, line or row where
the content is at fault.
"""

import collections
import glob
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from electra_jax import remote
from electra_jax.spec import UserError
from electra_jax.text.sources import (
    datasets,
    jsonlines,
    layout,
    listing,
    markup,
    parquet,
    stored,
    streams,
)
from electra_jax.text.sources.layout import Document
from electra_jax.text.sources.streams import Consumed

Skipped = collections.Counter[str]

_TEXT, _JSON, PARQUET = (".txt", ".text", ""), (".jsonl", ".ndjson", ".json"), (".parquet",)

# What Spark, Hadoop and Delta leave beside the parts of their output.
_BESIDE_PARTS = re.compile(r"_SUCCESS|_(common_)?metadata|_(committed|started)_.*|.*\.crc")
_PART = re.compile(r"part-.*|.*-\d{5}-of-\d{5}\b.*")

# Files on buckets whose openings are looked at beforehand.
_MOST_OPENED = 64

# The records whose lines are looked at for a width.
_RECORDS_LOOKED_AT = 200


def expand(patterns: Sequence[str]) -> list[str]:
    """The paths that `patterns` name: globs are expanded, `tfds:` names passed on; sorted, unique.

    A folder that Spark or Hadoop wrote stands for its files. What they write beside the parts is left
    out, with a note. Raises UserError for a pattern that matches no file.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found: dict[str, str] = {}  # absolute path -> path as given, so that a/b and ./a/b are one
    beside: set[str] = set()
    for pattern in patterns:
        if datasets.is_name(pattern):
            found[pattern] = pattern
            continue
        if remote.is_remote(pattern):
            paths = [url for inside in listing.found(pattern).values() for url in inside]
        else:
            paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
            paths = [path for named in paths for path in _files_of_output(named)]
        files = [path for path in paths if not os.path.isdir(path)]
        told = [path for path in files if not _BESIDE_PARTS.fullmatch(os.path.basename(path))]
        beside.update(set(files) - set(told))
        if not told:
            raise _no_match(pattern, paths)
        for path in told:
            found.setdefault(os.path.abspath(path), path)
    if not found:
        raise UserError("no input was given; name files, for example --input 'corpus/*.txt.gz'")
    if beside:
        names = ", ".join(sorted({os.path.basename(path) for path in beside})[:3])
        print(f"note: skipped {len(beside)} files that are no parts ({names})", file=sys.stderr)
    return sorted(found.values())


def check(paths: Sequence[str], text_key: str = "text") -> None:
    """Raises UserError for what can be known before the work starts.

    Looked at: that a file is there, may be read, is not empty, has a known suffix whose reader is
    installed, that its first block is UTF-8 text, and that its first record has the field
    `text_key`. Empty files named as parts of an output ("part-00007") are only noted.
    """
    empty = []
    there = stored.sizes(filter(remote.is_remote, paths))
    # Each opening is an answer of a bucket; what is wrong with the others is said when they are read.
    opened = set(list(there)[:: -(-len(there) // _MOST_OPENED) or 1])
    for path in paths:
        if datasets.is_name(path):
            datasets.check(path, text_key)
        elif path in there:
            _kind(path)
            if not (_has_opening(path, text_key, there[path]) if path in opened else there[path]):
                empty.append(path)
        elif not os.path.exists(path):
            raise UserError(f"input {path} does not exist")
        elif os.path.isdir(path):
            raise _no_match(path, [path])
        elif not _has_opening(path, text_key, os.path.getsize(path)):
            empty.append(path)
    for path in empty:
        if not is_part(path) or len(empty) == len(paths):
            raise refused_empty(path)
    if empty:
        print(
            f"note: {len(empty)} of {len(paths)} input files are empty parts, the first is {empty[0]}",
            file=sys.stderr,
        )


def size(paths: Sequence[str]) -> int:
    """The bytes stored under `paths` (what `read` reports as consumed); data sets count as 0."""
    return sum(sizes(paths).values())


def sizes(paths: Sequence[str]) -> dict[str, int]:
    """The bytes stored under each path; 0 for a data set."""
    found = stored.sizes(path for path in paths if not datasets.is_name(path))
    return {path: found.get(path, 0) for path in paths}


def read(
    path: str,
    text_key: str = "text",
    start: int = 0,
    consumed: Consumed | None = None,
    join_lines: bool = False,
    skipped: Skipped | None = None,
) -> Iterator[Document]:
    """Yields the documents of one path of `expand`, from number `start` on.

    `consumed` is called with the count of stored bytes as they are read (for a progress line), and
    `skipped` counts "null_texts" and "empty_articles" (a title alone). Raises UserError where content
    is at fault, and for a file without a single document that is no part of an output.
    """
    skipped = Skipped() if skipped is None else skipped
    lines, texts = _content(path, text_key, consumed, skipped)
    documents: Iterator[Document]
    if texts is not None:
        found = (layout.paragraphs(text, join_lines) for text in texts)
        documents = filter(None, found)
    else:
        documents = layout.wrapped_documents(lines) if join_lines else layout.documents(lines)
    first = next(documents, None)
    if first is None:
        if is_part(path):
            return
        raise refused_empty(path)
    yield from itertools.islice(itertools.chain((first,), documents), start, None)


def wrap_width(path: str, text_key: str = "text") -> int | None:
    """The width at which the opening of an input was wrapped, None where its lines are paragraphs."""
    lines, texts = _content(path, text_key, None, Skipped())
    if texts is not None:
        opening = itertools.islice(texts, _RECORDS_LOOKED_AT)
        return layout.wrap_width(line for text in opening for line in (*text, ""))
    return layout.wrap_width(itertools.islice(lines, 20 * _RECORDS_LOOKED_AT))


def _content(
    path: str, text_key: str, consumed: Consumed | None, skipped: Skipped
) -> tuple[Iterable[str], Iterator[Sequence[str]] | None]:
    """(lines, None) of a text, else ((), the lines of each record)."""
    if datasets.is_name(path):
        return (), _split(datasets.texts(path, text_key))
    kind = _kind(path)
    if kind in PARQUET:
        return (), _split(parquet.texts(path, text_key, consumed, skipped))
    parts = streams.lines(path, consumed)
    opening = next(parts, [])
    # An iterator, which lets go of the opening at its end; a list would stay for the whole file.
    lines = itertools.chain(iter(opening), itertools.chain.from_iterable(parts))
    if is_json(path, kind, opening):
        return (), _split(jsonlines.texts(path, text_key, lines, skipped))
    if markup.looks_like(opening):
        return (), markup.articles(path, lines, skipped)
    return lines, None


def _split(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    return (text.split("\n") for text in texts)


def is_json(path: str, kind: str, opening: Sequence[str]) -> bool:
    """Whether a file is JSON lines: by its name, and where that does not tell, by its first lines."""
    if kind not in _JSON:
        return jsonlines.looks_like(opening)
    # Another fault of the first line is said with its column, as in .jsonl.
    if kind == ".json" and next(filter(None, map(str.strip, opening)), "").startswith("["):
        raise UserError(
            f"{path} holds a JSON array; expected JSON lines, an object a line, as made by: "
            f"jq -c '.[]' {os.path.basename(path)}"
        )
    return True


def _has_opening(path: str, text_key: str, stored_bytes: int) -> bool:
    """Whether there is anything in a file, as far as sizes and the first blocks show; UserError as in `check`."""
    kind = _kind(path)
    if stored_bytes == 0:
        return False
    if kind in PARQUET:
        return parquet.rows(path, text_key) > 0
    opening = list(itertools.islice(streams.lines(path), 2))  # of a short file, all
    if not opening:
        return False
    if is_json(path, kind, opening[0]):
        lines = itertools.chain.from_iterable(opening)
        next(jsonlines.texts(path, text_key, lines, Skipped()), None)
    return True


def is_part(path: str) -> bool:
    """Whether a file is named as one of many parts of an output, of which some may be empty."""
    return _PART.fullmatch(os.path.basename(path)) is not None


def _files_of_output(path: str) -> list[str]:
    """The files of a folder that Spark or Hadoop wrote; of everything else the path itself."""
    if not os.path.isdir(path):
        return [path]
    names = sorted(os.listdir(path))
    if not listing.is_output(names):
        return [path]
    files = [os.path.join(path, name) for name in names]
    return [file for file in files if os.path.isfile(file)]


def _kind(path: str) -> str:
    kind = streams.split_suffix(path)[0]
    if kind in (*_TEXT, *_JSON, *PARQUET) or is_part(path):
        return kind
    hint = " (of a Wikipedia dump, what WikiExtractor makes of it)" if kind == ".xml" else ""
    raise UserError(
        f"input {path} has the suffix {kind!r}; expected .txt (a paragraph a line, a blank line "
        f"between documents){hint}, .jsonl or .parquet, each also .gz, .zst, .bz2 or .xz, or tfds:NAME"
    )


def _no_match(pattern: str, paths: Sequence[str]) -> UserError:
    if any(os.path.isdir(path) for path in paths) or (remote.is_remote(pattern) and not paths):
        return UserError(
            f"input {pattern!r} names folders, no file; name the files, for example "
            f"'{os.path.join(pattern.rstrip('/*'), '*.txt.gz')}'"
        )
    if paths:
        return UserError(f"input {pattern!r} matches no part of an output, only files beside them")
    return UserError(f"input {pattern!r} matches no file (current folder: {os.getcwd()})")


def refused_empty(path: str) -> UserError:
    """The error for a file without a single document."""
    return UserError(f"input {path} is empty: it holds no text; remove it from the inputs")
