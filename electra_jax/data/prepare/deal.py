"""Documents dealt in blocks to worker processes, the results in order, and never many in flight."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from electra_jax.data.prepare import work
from electra_jax.spec import UserError

T = TypeVar("T")


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
            with _deaf_to_ctrl_c():  # a worker may be started now
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


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C waits, and a process that is started never hears it: this one tells it what to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
