"""Documents dealt in blocks to worker processes, the results in order, and never many in flight."""

import collections
import concurrent.futures
import hashlib
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from electra_jax import files
from electra_jax.data import work
from electra_jax.spec import UserError
from electra_jax.text import documents

# Characters dealt to a worker at a time: some tenths of a second of work, so that dealing costs
# nothing beside it, and few megabytes in flight.
_BLOCK = 2**20

# The most characters looked at to make sure that a document is held out.
_LOOKED_AT = 2**23

T = TypeVar("T")

# Whether document `number` of input number `file` is held out.
HeldOut = Callable[[int, int], bool]

# (input number, document number) of documents that are left out.
Dropped = frozenset[tuple[int, int]]


def held_out_rule(
    paths: Sequence[str],
    text_key: str,
    seed: int,
    fraction: float,
    dropped: Dropped = frozenset(),
) -> HeldOut:
    """Holds out each document with probability `fraction`, by a hash of the seed and its number.

    Of the first 1 / fraction documents at least one is held out, so that small corpora have a
    held-out split too. Raises UserError when there is no second document.
    """
    if fraction == 0:
        return lambda file, number: False
    first: list[tuple[float, int, int]] = []
    size = 0
    for file, path in enumerate(paths):
        for number, document in enumerate(documents.read(path, text_key)):
            if (file, number) in dropped:
                continue
            first.append((_draw(seed, file, number), file, number))
            size += sum(map(len, document))
            if len(first) >= 2 and (size > _LOOKED_AT or len(first) >= math.ceil(1 / fraction)):
                break
        else:
            continue
        break
    if len(first) < 2:
        raise UserError(
            f"{paths[0]} holds a single document, so none can be held out; separate documents by "
            "blank lines, name held-out files with --valid-input, or give --valid-fraction 0"
        )
    _, *chosen = min(first)
    return lambda file, number: _draw(seed, file, number) < fraction or [file, number] == chosen


def _draw(seed: int, file: int, number: int) -> float:
    """A number in [0, 1) that depends on the three alone."""
    return work.draws(f"held out/{seed}/{file}/{number}")()


def describe(path: str, text_key: str) -> dict[str, Any]:
    """Name, size and SHA-256 of an input. A file's are those of its bytes as stored, a data set's
    those of its texts. The folder it lies in is left out: it does not change the data."""
    if os.path.isfile(path):
        size = os.path.getsize(path)
        return {"name": os.path.basename(path), "bytes": size, "sha256": files.sha256(path)}
    digest, size = hashlib.sha256(), 0
    for document in documents.read(path, text_key):
        text = "".join(f"{line}\n" for line in [*document, ""]).encode()
        digest.update(text)
        size += len(text)
    prefix, _, rest = path.partition(":")
    name = f"{prefix}:{os.path.basename(rest.rstrip('/'))}"
    return {"name": name, "bytes": size, "sha256": digest.hexdigest()}


def blocks(
    paths: Sequence[str],
    text_key: str,
    held_out: HeldOut,
    consumed: documents.Consumed | None,
    first_file: int = 0,
    dropped: Dropped = frozenset(),
) -> Iterator[work.Block]:
    """All documents in order but the `dropped`, in blocks of about a million characters that never
    span inputs.

    Inputs are numbered from `first_file`; `consumed` is told the stored bytes read. Raises
    UserError where an input's content is at fault.
    """
    for file, path in enumerate(paths, first_file):
        block, size = work.Block(file, [], [], []), 0
        for number, document in enumerate(documents.read(path, text_key, consumed=consumed)):
            if (file, number) in dropped:
                continue
            block.numbers.append(number)
            block.documents.append(document)
            block.held_out.append(held_out(file, number))
            size += sum(map(len, document))
            if size >= _BLOCK:
                yield block
                block, size = work.Block(file, [], [], []), 0
        if block.documents:
            yield block


def made(todo: Iterator[work.Block], job: work.Job, workers: int) -> Iterator[work.Made]:
    """The records of all blocks, in their order, by `workers` processes (by this one for 1)."""
    if workers == 1:
        yield from map(work.Maker(job), todo)
    else:
        yield from in_order(work.run, todo, workers, work.start, (job,))


def in_order(
    run: Callable[[work.Block], T],
    todo: Iterator[work.Block],
    workers: int,
    start: Callable[..., None],
    arguments: tuple[Any, ...] = (),
) -> Iterator[T]:
    """`run` of all blocks, in their order, by processes begun by `start` (by this one for 1).

    A block is read only when a result has been taken, so memory does not grow with the corpus.
    """
    if workers == 1:
        yield from map(run, todo)
        return
    # Spawned, not forked: this process has threads (jax, tokenizers), which a fork would break.
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), start, arguments
    )
    waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
    try:
        for block in todo:
            waiting.append(pool.submit(run, block))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process ended before its work was done: killed for lack of memory (try fewer "
            "--workers), or prepare() was called in a script outside `if __name__ == '__main__':`"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
