"""`prepare` as an Apache Beam pipeline: the same functions on an engine that exists, the same rows in another order.

An input is read by one worker, in blocks of documents that any worker turns into records; records go
to shards by a hash of their block, so that the order of rows is the same for every engine and number
of workers, too. Workers write shards into a folder that they share with this process.
"""

import collections
import functools
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files
from electra_jax.data import build, shards, work
from electra_jax.spec import UserError

# In this process, and of all of Beam's runners the one that needs no other program.
LOCAL = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_INFO = "info.json"

# The records of a block in one split: what orders blocks, the records, what was counted.
Part = tuple[int, int, np.ndarray, dict[str, int]]


def engine(options: Sequence[str]) -> build.Engine:
    """What `build.prepare` takes as its engine. `options` are Beam's (["--runner=FlinkRunner", ...]).

    Raises UserError where Beam is not installed, or does not know an option.
    """
    beam = _library()
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions([*options] if options else [LOCAL])
    return functools.partial(_run, beam, parsed)


def _run(
    beam: Any,
    options: Any,
    corpus: build.Corpus,
    job: work.Job,
    folder: Path,
    rows_per_shard: int,
) -> build.Written:
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
    return _collect(parts, folder)


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
    first = block.numbers[0]
    digest = hashlib.blake2b(f"{block.file}/{first}".encode(), digest_size=8).digest()
    shard = int.from_bytes(digest) % count
    for split, records in made.records.items():
        yield f"{split}-{shard:05d}", (block.file, first, records, dict(made.counts[split]))


def _write(parts: str, rows_per_shard: int, name: str, group: Iterable[Part]) -> None:
    """Writes the shards of one name and what is said of them, whole or not at all: engines try again."""
    folder = Path(parts) / f"{name}.partial-{secrets.token_hex(4)}"
    folder.mkdir()
    writer = shards.Shards(folder, name.partition("-")[0], rows_per_shard)
    counts: collections.Counter[str] = collections.Counter()
    for _, _, records, counted in sorted(group, key=lambda part: part[:2]):
        writer.write(records)
        counts.update(counted)
    files.write_json(folder / _INFO, {"shards": writer.finish(), "counts": dict(counts)})
    try:
        folder.rename(Path(parts) / name)
    except OSError:  # an earlier try was thought lost, and has written the same
        shutil.rmtree(folder)


def _collect(parts: Path, folder: Path) -> build.Written:
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
