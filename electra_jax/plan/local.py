"""This machine's CPU: its rates, and a few real steps to hold the plan against."""

import functools
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.source import Prepared
from electra_jax.host import resident
from electra_jax.learn import hardware
from electra_jax.learn.program import place_array
from electra_jax.plan.cost import Machine
from electra_jax.plan.step import Compiled
from electra_jax.pretrain.program import FIELDS

STEPS = 3  # timed, after one that is not
_LEAST_COPIED, _MOST_COPIED = 1 << 26, 1 << 30  # bytes, more than caches hold
_IN_CACHE = 1 << 20  # bytes that every processor's caches hold
_USUAL_CACHE = 32 << 20


@dataclass(frozen=True)
class Measured:
    """What happened: the median of the steps, and how far the process's memory rose over the run, all devices."""

    step_s: float
    steps: int
    peak_bytes: int | None  # None where the system does not tell


def machine(dtype: str, devices: int) -> Machine:
    """The rates of one of `devices` equal parts of this machine, measured now."""
    peak, cache = hardware.matmul_peak(dtype) / devices, cache_size()
    beyond = min(max(_LEAST_COPIED, 4 * cache), _MOST_COPIED)
    return Machine(
        kind="cpu",
        peak=peak,
        bandwidth=_bandwidth(beyond) / devices,
        egress=0.0,
        clock=None,
        cache=cache // devices,
        cache_bandwidth=_bandwidth(_IN_CACHE) / devices,
    )


@functools.cache
def _bandwidth(size: int) -> float:
    """Bytes/s of reading and writing an array of `size` bytes in place, the best of five.

    In place, because a result of its own would be memory that the system zeroes first, page by page, at a tenth of
    the rate. Small arrays go round many times in one call, so that the call itself does not count.
    """
    rounds = max(1, _LEAST_COPIED // size)
    add = jax.jit(lambda x: jax.lax.fori_loop(0, rounds, lambda _, y: y + 1, x), donate_argnums=0)
    x = add(jnp.zeros(size // 4, jnp.float32)).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        x = add(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * rounds * size / best


def cache_size(processor: Path = Path("/sys/devices/system/cpu/cpu0")) -> int:
    """Bytes of the largest cache of this machine's processor; some, where the system does not tell."""
    sizes = []
    for file in processor.glob("cache/index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)", file.read_text().strip())
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[found[2]])
    return max(sizes, default=_USUAL_CACHE)


def free_memory() -> int | None:
    """Bytes that programs may still take on this machine; None where the system does not tell."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def measure(compiled: Compiled, data: Prepared) -> Measured | None:
    """Runs the compiled step on rows of random tokens, from freshly initialised parameters; None without the memory."""
    memory, free = compiled.weighed.memory, free_memory()
    devices = compiled.program.mesh.size
    if memory is not None and free is not None and memory.total * devices > free:
        return None  # asked for all the same, it would be refused, or end another program
    try:
        return _measure(compiled, data)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _measure(compiled: Compiled, data: Prepared) -> Measured:
    built = compiled.program
    before = resident.now()
    resident.forget_peak()
    state = built.init()
    ids_BxL = np.random.default_rng(0).integers(
        len(data.special), data.vocab_size, built.abstract_batch["ids"].shape, np.int32
    )
    rows = {
        "ids": ids_BxL,
        "types": np.zeros_like(ids_BxL),
        "docs": np.ones_like(ids_BxL),
        "word_starts": np.ones_like(ids_BxL),
        "positions": np.broadcast_to(np.arange(ids_BxL.shape[1], dtype=np.int32), ids_BxL.shape),
    }
    batch = {name: place_array(rows[name], built.batch_sharding) for name in FIELDS}
    seconds = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        state, sums = compiled.executable(state, batch)
        jax.block_until_ready((state, sums))
        seconds.append(time.perf_counter() - start)
    after = resident.peak()
    rose = max(0, after - before) if before is not None and after is not None else None
    return Measured(statistics.median(seconds[1:]), STEPS, rose)
