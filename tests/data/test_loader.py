"""Loading: the right rows on the right devices, ahead of the consumer, with errors and ends that
arrive.
"""

import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.data import loader
from electra_jax.spec import UserError

LENGTH = 5


class Numbers:
    """A source whose row i holds i * 100 + position, so that every element names its place."""

    def __init__(self, n: int, fail_at: int | None = None) -> None:
        self.n, self.fail_at, self.read = n, fail_at, []

    def __len__(self) -> int:
        return self.n

    def rows(self, numbers_N: np.ndarray) -> dict[str, np.ndarray]:
        if self.fail_at is not None and self.fail_at in numbers_N:
            raise UserError("row 7 is damaged")
        self.read.append(numbers_N.copy())
        ids_NxL = numbers_N[:, None] * 100 + np.arange(LENGTH)
        docs_NxL = np.broadcast_to(numbers_N[:, None] >= 0, ids_NxL.shape)
        return {"ids": ids_NxL.astype(np.int32), "docs": docs_NxL.astype(np.int32)}


def one_device() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), P("data"))


def step_rows(step: int) -> np.ndarray:
    return np.arange(step * 4, step * 4 + 4)


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "loader"]


def test_steps_come_in_order_from_any_start_under_a_transfer_guard():
    """Catches an implicit transfer in the consumer, a first or last step off by one, and a thread
    that outlives the loader."""
    with loader.Loader(Numbers(400), step_rows, one_device(), 3, 9) as batches:
        with jax.transfer_guard("disallow"):
            found = [(step, jax.device_get(batch)) for step, batch in batches]
        assert batches.wait_s > 0
    assert [step for step, _ in found] == [3, 4, 5, 6, 7, 8]
    for step, batch in found:
        assert batch["ids"].dtype == np.int32
        assert np.array_equal(batch["ids"], step_rows(step)[:, None] * 100 + np.arange(LENGTH))
    assert not loader_threads()


def test_reads_ahead_but_no_further():
    """Catches a loader that reads the whole run into memory, and one that waits to be asked."""
    source = Numbers(4000)
    with loader.Loader(source, step_rows, one_device(), 0, 1000, ahead=2) as batches:
        deadline = time.monotonic() + 5
        while len(source.read) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # Two in the queue and one in the hands of the thread.
        assert len(source.read) == 3
        assert next(iter(batches))[0] == 0


def test_an_error_of_the_thread_arrives_in_the_consumer():
    """Catches a consumer that waits for ever, or ends quietly, when reading fails."""
    with loader.Loader(Numbers(400, fail_at=7), step_rows, one_device(), 0, 9) as batches:
        found = iter(batches)
        assert next(found)[0] == 0
        with pytest.raises(UserError, match="row 7 is damaged"):
            next(found)
    assert not loader_threads()


def test_leaving_early_stops_the_thread():
    """Catches a thread stuck on a full queue when the consumer leaves or raises."""
    batches = loader.Loader(Numbers(4000), step_rows, one_device(), 0, 1000)
    with pytest.raises(KeyboardInterrupt), batches:
        for _ in batches:
            raise KeyboardInterrupt
    assert not loader_threads()


def test_fixed_batches_fill_the_last_with_empty_rows():
    """Catches held-out rows read twice, or left out, where the batch does not divide their number."""
    found = list(loader.fixed_batches(Numbers(10), batch=4, count=9, sharding=one_device()))
    docs = np.concatenate([b["docs"] for b in found])
    ids = np.concatenate([b["ids"] for b in found])
    assert len(found) == 3
    assert docs[:, 0].tolist() == [1] * 10 + [0, 0]
    assert (ids[:10, 0] // 100).tolist() == list(range(10))
    assert len(list(loader.fixed_batches(Numbers(10), 4, 2, one_device()))) == 2


def test_fixed_batches_are_filled_up_for_devices():
    """Catches rows of the next batch taken into the filling, and so counted twice."""
    three = list(loader.fixed_batches(Numbers(7), 3, 9, one_device(), padded=4))
    padding = [(np.asarray(b["docs"]) == 0).all(axis=1).tolist() for b in three]
    assert padding == [[False] * 3 + [True]] * 2 + [[False] + [True] * 3]


ORDER = np.array([5, 3, 100, 7, 2, 2, 9, 1, 0, 11, 50, 60, 70, 80, 90, 4])


def mesh(data: int, fsdp: int) -> Mesh:
    return Mesh(np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp), ("data", "fsdp"))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8, 1), P("data")),
        ((4, 2), P(("data", "fsdp"))),
        ((2, 4), P(("fsdp", "data"))),
        ((4, 2), P("data", None)),
        ((2, 4), P(None)),
    ],
)
def test_eight_devices_each_hold_their_own_rows(shape, spec):
    """Catches rows laid out in device order instead of the mesh's, a part cut from the wrong end,
    and transfers that a guard set for all threads forbids."""
    source = Numbers(400)
    sharding = NamedSharding(mesh(*shape), spec)
    jax.config.update("jax_transfer_guard", "disallow")
    try:
        with loader.Loader(source, lambda step: ORDER, sharding, 0, 2) as batches:
            for _, batch in batches:
                ids = batch["ids"]
                assert ids.shape == (16, LENGTH)
                assert ids.sharding == sharding
                assert (jax.device_get(ids)[:, 0] // 100).tolist() == ORDER.tolist()
                for shard in ids.addressable_shards:
                    held = jax.device_get(shard.data)[:, 0] // 100
                    assert np.array_equal(held, ORDER[shard.index[0]])
        fixed = next(loader.fixed_batches(source, 8, 1, sharding))
        assert fixed["ids"].sharding == sharding
    finally:
        jax.config.update("jax_transfer_guard", "allow")
    # Devices that hold the same rows do not make them be read twice.
    assert [len(numbers) for numbers in source.read] == [16, 16, 8]


def test_a_host_reads_only_the_rows_of_its_devices(monkeypatch):
    """Catches every host reading the whole global batch: this one is given two of eight devices."""
    sharding = NamedSharding(mesh(4, 2), P(("data", "fsdp")))
    everywhere = NamedSharding.addressable_devices_indices_map
    mine = sharding.mesh.devices[1]
    monkeypatch.setattr(
        NamedSharding,
        "addressable_devices_indices_map",
        lambda self, shape: {d: i for d, i in everywhere(self, shape).items() if d in mine},
    )
    source = Numbers(400)
    with pytest.raises(jax.errors.JaxRuntimeError, match="addressable devices"):
        # One process cannot build the others' shards; what it asked the source for is the point.
        loader.put_rows(source, ORDER, sharding)
    assert [numbers.tolist() for numbers in source.read] == [ORDER[4:8].tolist()]


def test_a_batch_that_does_not_divide_is_refused():
    """Catches jax's own error, which names no setting."""
    with pytest.raises(UserError, match="12 rows cannot be divided among 8 devices"):
        loader.put_rows(Numbers(400), ORDER[:12], NamedSharding(mesh(8, 1), P("data")))


def test_a_source_hears_of_rows_before_they_are_read():
    """Catches shards fetched only when a step waits for them, and ones announced beyond the last step."""
    heard = []

    class Expecting(Numbers):
        def expect(self, numbers_N):
            heard.append(int(numbers_N[0]))

    with loader.Loader(
        Expecting(100),
        lambda step: np.arange(step * 8, step * 8 + 8),
        one_device(),
        1,
        6,
        lookahead=3,
    ) as batches:
        assert [step for step, _ in batches] == [1, 2, 3, 4, 5]
    assert heard == [32, 40]
