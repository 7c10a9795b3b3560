"""`prepare` as an Apache Beam pipeline: the same functions on an engine that exists, the same rows in another order.

An input is read by one worker, in blocks of documents that any worker turns into records; records go
to shards by a hash of their block, so that the order of rows is the same for every engine and number
of workers, too. Workers write shards into a folder that they share with this process.
"""

import argparse
import collections
import functools
import hashlib
import json
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from electra_jax import files
from electra_jax.data.prepare import build, processes, shards, work
from electra_jax.spec import UserError, nearest

# In this process, and of all of Beam's runners the one that needs no other program.
LOCAL = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_INFO = "info.json"

# Runners whose job server has options that Beam for Python cannot know.
_JOB_SERVERS = ("flink", "spark", "portable")

# The records of a block in one split: what orders blocks (input, its first document and the part of
# that), the records, what was counted.
Part = tuple[tuple[int, int, int], np.ndarray, dict[str, int]]


def engine(options: str = "") -> build.Engine:
    """What `build.prepare` takes as its engine. `options` are Beam's, as typed ("--runner=FlinkRunner ...").

    Raises UserError where Beam is not installed, or does not know an option or the runner.
    """
    beam = _library()
    parsed = _parsed(options)
    try:
        beam.Pipeline(options=parsed)  # makes the runner and checks its options; runs nothing
    except (ValueError, ImportError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(
            f"--beam-options: Beam refuses the runner or its options: {' '.join(str(error).split())}"
        ) from error
    return functools.partial(_run, beam, parsed)


class _Parser(argparse.ArgumentParser):
    """Parses what Beam's classes of options declare, and refuses in our way."""

    def add_value_provider_argument(self, *names: str, **settings: Any) -> None:
        """What those classes call for options that a template leaves open."""
        self.add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"--beam-options: {message}")


def _parsed(options: str) -> Any:  # of PipelineOptions
    """Beam's options, every one of them known and of its type."""
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        words = shlex.split(options) or [LOCAL]
    except ValueError as error:
        raise UserError(f"--beam-options={options!r} cannot be split into words: {error}") from None
    parser = _Parser(prog="--beam-options", allow_abbrev=False, add_help=False)
    for declared in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        if "_add_argparse_args" in declared.__dict__:
            declared._add_argparse_args(parser)  # type: ignore[arg-type]
    known, unknown = parser.parse_known_args(words)
    runner = known.runner or ""
    if unknown and "-h" not in unknown and any(name in runner.lower() for name in _JOB_SERVERS):
        print(
            f"note: Beam for Python does not know {' '.join(unknown)}; the job server of {runner} may",
            file=sys.stderr,
        )
    elif unknown:
        names = [name for action in parser._actions for name in action.option_strings]
        raise _unknown_option(unknown[0], names)
    return PipelineOptions(words)


def _unknown_option(word: str, known: Sequence[str]) -> UserError:
    """The error for a word that is no option of Beam, with the nearest one."""
    name = word.partition("=")[0]
    guess = nearest(name, known)
    hint = f" Did you mean {guess}?" if guess else ""
    return UserError(f"--beam-options: {name} is no option of Beam.{hint}")


def _run(
    beam: Any,
    options: Any,
    order: build.Order,
    folder: Path,
) -> build.Done:
    corpus, job, rows_per_shard = (
        build.chosen(order, build.cores(), folder),
        order.job,
        order.rows_per_shard,
    )
    parts = folder / "parts"
    parts.mkdir()
    count = shards.expected(corpus.stored)
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "inputs" >> beam.Create(range(len(corpus)), reshuffle=True)
                | "documents" >> beam.FlatMap(corpus.blocks)
                | "deal" >> beam.Reshuffle()
                | "records" >> beam.FlatMap(functools.partial(_records, job, count))
                | "shard" >> beam.GroupByKey()
                | "write" >> beam.MapTuple(functools.partial(_write, str(parts), rows_per_shard))
            )
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        raise UserError(told) from error
    inputs = [corpus.describe_one(file) for file in range(len(corpus))]
    return build.finished(corpus, processes.Written(*_collect(parts, folder), inputs))


def _told(error: Exception) -> str | None:
    """What a worker's UserError said: engines carry it as text, or add where it was met."""
    text = str(error)
    if not isinstance(error, UserError):
        found = re.search(r"electra_jax\.spec\.UserError: (.+)", text)
        if found is None:
            return None
        text = found[1]
    return text.partition(" [while running")[0]


@functools.lru_cache(maxsize=1)
def _maker(job: work.Job) -> work.Maker:
    """Opened once by a worker, not for each block."""
    return work.Maker(job)


def _records(job: work.Job, count: int, block: work.Block) -> Iterator[tuple[str, Part]]:
    """The records of a block by the name of their shard."""
    made = _maker(job)(block)
    # A block may hold nothing but the counts of what was skipped.
    first, part = (block.numbers[0], block.parts[0]) if block.documents else (-1, 0)
    digest = hashlib.blake2b(f"{block.file}/{first}".encode(), digest_size=8).digest()
    shard = int.from_bytes(digest) % count
    for split, records in made.records.items():
        yield f"{split}-{shard:05d}", ((block.file, first, part), records, dict(made.counts[split]))


def _write(parts: str, rows_per_shard: int, name: str, group: Iterable[Part]) -> None:
    """Writes the shards of one name and what is said of them, whole or not at all: engines try again."""
    folder = Path(parts) / f"{name}.partial-{secrets.token_hex(4)}"
    folder.mkdir()
    writer = shards.Shards(folder, name.partition("-")[0], rows_per_shard)
    counts: collections.Counter[str] = collections.Counter()
    for _, records, counted in sorted(group, key=lambda part: part[0]):
        writer.write(records)
        counts.update(counted)
    files.write_json(folder / _INFO, {"shards": writer.finish(), "counts": dict(counts)})
    try:
        folder.rename(Path(parts) / name)
    except OSError:  # an earlier try was thought lost, and has written the same
        shutil.rmtree(folder)


def _collect(
    parts: Path, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, "collections.Counter[str]"]]:
    """Moves the shards to their place, and adds up what is said of them."""
    written: list[dict[str, Any]] = []
    counts = {split: collections.Counter[str]() for split in ("train", "valid")}
    for split in counts:
        found = []
        for part in sorted(
            path for path in parts.glob(f"{split}-*") if ".partial-" not in path.name
        ):
            info = json.loads((part / _INFO).read_text())
            counts[split].update(info["counts"])
            found += [(part, shard) for shard in info["shards"]]
        for number, (part, shard) in enumerate(found):
            name = shards.name(split, number, len(found))
            (part / shard["name"]).rename(folder / name)
            written.append({**shard, "name": name})
    shutil.rmtree(parts)
    return written, counts


def _library() -> Any:
    try:
        import apache_beam
    except ImportError as error:
        raise UserError("prepare --runner beam needs: pip install 'electra_jax[beam]'") from error
    return apache_beam
