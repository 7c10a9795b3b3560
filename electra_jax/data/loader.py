"""Rows to global, sharded arrays: each host reads its own part, a thread ahead of the device."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import jax
import numpy as np

from electra_jax.spec import UserError

Batch = dict[str, jax.Array]


class Rows(Protocol):
    """What a loader reads from: `source.Source`, or anything like it."""

    def __len__(self) -> int: ...

    def rows(self, numbers_N: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays [N, ...] by name; a negative number gives an empty row."""
        ...


@runtime_checkable
class Expects(Protocol):
    """A source that wants to hear early of the rows that will be read."""

    def expect(self, numbers_N: np.ndarray) -> None: ...


class Loader:
    """The batches of steps start..stop-1, in order, read and put on the devices by a thread.

    Use as a context manager and iterate: `with Loader(...) as batches: for step, batch in batches`.
    Each batch is a dict of global int32 arrays [B, L] under `sharding`; this host reads only the
    rows that its devices hold. At most `ahead` batches wait for the consumer. `wait_s` is the time
    the consumer has waited. An exception of the thread is raised in the consumer. With a `lookahead` the source
    hears of the rows that many steps before they are read.
    """

    def __init__(
        self,
        source: Rows,
        rows_of_step: Callable[[int], np.ndarray],
        sharding: jax.sharding.NamedSharding,
        start: int,
        stop: int,
        ahead: int = 2,
        lookahead: int = 0,
    ) -> None:
        self._lookahead = lookahead
        self.wait_s = 0.0
        self._source, self._rows_of_step, self._sharding = source, rows_of_step, sharding
        self._steps = range(start, stop)
        self._queue: queue.Queue[tuple[int, Batch] | BaseException | None] = queue.Queue(
            max(1, ahead)
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the thread and waits for it; the batches it had ready are dropped."""
        self._closing.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(timeout=0.01)
        self._drain()

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while not self._closing.is_set():
            begin = time.perf_counter()
            item = self._queue.get()
            self.wait_s += time.perf_counter() - begin
            if isinstance(item, tuple):
                yield item
                continue
            self._closing.set()
            if item is not None:
                raise item

    def _run(self) -> None:
        try:
            for step in self._steps:
                if self._closing.is_set():
                    return
                numbers_B = self._rows_of_step(step)
                batch = put_rows(self._source, numbers_B, self._sharding)
                self._expect(step)
                self._queue.put((step, batch))
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
            self._queue.put(error)

    def _expect(self, step: int) -> None:
        later = step + self._lookahead
        if self._lookahead and later in self._steps and isinstance(self._source, Expects):
            self._source.expect(self._rows_of_step(later))

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            pass


def put_rows(source: Rows, numbers_B: np.ndarray, sharding: jax.sharding.NamedSharding) -> Batch:
    """One global batch of these rows, each array [B, L] under `sharding`.

    Reads only what this process's devices hold, so every process calls it with the same numbers.
    Raises UserError when the rows cannot be divided among the devices.
    """
    batch = len(numbers_B)
    parts = _parts(batch, sharding)
    local = np.unique(np.concatenate([np.arange(p.start, p.stop) for p in parts]))
    arrays = source.rows(numbers_B[local])

    def put(array: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            begin, end, _ = index[0].indices(batch)
            # The rows of a part are neighbours in `local`, which is sorted and holds all of them.
            at = int(np.searchsorted(local, begin))
            return array[(slice(at, at + end - begin), *index[1:])]

        return jax.make_array_from_callback((batch, *array.shape[1:]), sharding, part)

    # Transfers are this function's purpose; to jax's guard those to several devices look implicit.
    with jax.transfer_guard_host_to_device("allow"):
        return {name: put(array) for name, array in arrays.items()}


def fixed_batches(
    source: Rows,
    batch: int,
    count: int,
    sharding: jax.sharding.NamedSharding,
    padded: int | None = None,
) -> Iterator[Batch]:
    """The first batch * count rows in order (fewer when there are fewer), for held-out evaluation.

    The last batch is filled up with empty rows: docs 0, ids padding; and each to `padded` rows, if given.
    """
    for begin in range(0, min(len(source), batch * count), batch):
        numbers_B = np.full(padded or batch, -1)
        real = min(batch, len(source) - begin)
        numbers_B[:real] = np.arange(begin, begin + real)
        yield put_rows(source, numbers_B, sharding)


def _parts(batch: int, sharding: jax.sharding.NamedSharding) -> list[range]:
    """The rows of the global batch that each of this process's devices holds."""
    spec = sharding.spec[0] if len(sharding.spec) else None
    axes = () if spec is None else (spec,) if isinstance(spec, str) else tuple(spec)
    ways = int(np.prod([sharding.mesh.shape[axis] for axis in axes], dtype=np.int64))
    if batch % ways:
        raise UserError(
            f"a batch of {batch} rows cannot be divided among {ways} devices "
            f"(mesh {dict(sharding.mesh.shape)}); choose a multiple of {ways}"
        )
    by_row = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(spec))
    slices = by_row.addressable_devices_indices_map((batch,)).values()
    return [range(*index[0].indices(batch)) for index in slices if index is not None]
