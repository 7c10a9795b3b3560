"""Measures the train step of a config: the same compiled program as training runs, compile time apart."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from tqdm import tqdm

from electra_jax.data.loader import put_rows
from electra_jax.learn import hardware, mesh
from electra_jax.pretrain import fit, options, program
from electra_jax.pretrain.options import Phase, RunSpec
from electra_jax.pretrain.speed import useful_flops

WARM_UP = 2  # steps before the clock starts
ROUND_S = 0.2  # a round shorter than this is mostly the waiting at its end
READ_S = 2.0


def measure(run: RunSpec, phase: Phase, rounds: int) -> dict[str, Any]:
    """Figures of the step of a phase; see `table` for their units. UserError when it does not fit the devices."""
    devices = mesh.build(program.choose_mesh(run, phase.data))
    options.check(run, phase, devices.size)
    built = program.build(run, phase, devices)
    begin = time.perf_counter()
    compiled = fit.compile_that_fits(run, phase, built)
    compile_s = time.perf_counter() - begin
    batch = put_rows(
        phase.data.source("train"), phase.rows(0, run.train.seed), built.batch_sharding
    )
    state = built.init()

    def steps(count: int) -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(count):
            state, sums = compiled(state, batch)
        jax.block_until_ready(sums)
        return (time.perf_counter() - begin) / count

    times = _rounds(steps, rounds)
    step_s = statistics.median(times)
    useful = useful_flops(run, phase)
    return {
        "device": f"{devices.size} x {devices.devices.flat[0].device_kind}",
        "jax": jax.__version__,
        "batch": phase.batch,
        "accumulation": phase.accumulation,
        "seq_len": phase.data.seq_len,
        "dtype": run.model.dtype,
        "dropout": run.model.dropout,
        "attention_dropout": run.model.attention_dropout,
        "compile_s": compile_s,
        "step_s": step_s,
        "step_s_quartiles": _quartiles(times),
        "tokens_per_s": phase.batch * phase.data.seq_len / step_s,
        "useful_tflops_per_s": useful / step_s / 1e12,
        **hardware.utilisation(useful / step_s, run.model.dtype, list(devices.devices.flat)),
        "memory_needed_bytes": fit.needed(compiled),
        "memory_peak_bytes": _peak(devices.local_devices[0]),
        "memory_limit_bytes": fit.capacity(devices),
        "loader_headroom": _headroom(phase, run.train.seed, built, step_s),
    }


def _rounds(steps: Callable[[int], float], rounds: int) -> list[float]:
    """Seconds a step of each round; a round has as many steps as fill ROUND_S."""
    steps(WARM_UP)
    count = max(1, round(ROUND_S / steps(1)))
    return [steps(count) for _ in tqdm(range(rounds), desc="rounds", disable=None, leave=False)]


def _quartiles(times: list[float]) -> list[float]:
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return [low, high]


def _peak(device: jax.Device) -> int:
    """Most bytes the device has held; on CPU, which keeps no count, most bytes this process has held."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _headroom(phase: Phase, seed: int, built: program.Program, step_s: float) -> float | None:
    """Batches the loader's one thread can read and place in the time of a step; None for data that are not read."""
    if not phase.data.info:
        return None
    source, read, begin = phase.data.source("train"), 0, time.perf_counter()
    while time.perf_counter() - begin < READ_S:
        jax.block_until_ready(put_rows(source, phase.rows(read, seed), built.batch_sharding))
        read += 1
    return step_s * read / (time.perf_counter() - begin)


def table(figures: dict[str, Any]) -> str:
    """The figures for people to read."""
    low, high = figures["step_s_quartiles"]
    mfu, headroom = figures["mfu"], figures["loader_headroom"]
    limit = figures["memory_limit_bytes"]
    of = "" if limit is None else f" of {limit / 2**30:.2f}"
    shape = f"{figures['batch']} x {figures['seq_len']}"
    if figures["accumulation"] > 1:
        shape += f" in {figures['accumulation']} parts"
    lines = {
        "device": f"{figures['device']}, jax {figures['jax']}",
        "step": f"{shape}, {figures['dtype']}, dropout {figures['dropout']}, "
        f"attention dropout {figures['attention_dropout']}",
        "compile": f"{figures['compile_s']:.1f} s",
        "step time": f"{figures['step_s'] * 1e3:.1f} ms, half of the rounds "
        f"{low * 1e3:.1f} to {high * 1e3:.1f}",
        "tokens/s": f"{figures['tokens_per_s']:,.0f}",
        "useful": f"{figures['useful_tflops_per_s']:.3f} TFLOP/s",
        "mfu": "unknown: no vendor's peak for this device" if mfu is None else f"{mfu:.1%}",
        "mfu of matmul": f"{figures['mfu_of_matmul']:.1%}",
        "memory": f"{figures['memory_needed_bytes'] / 2**30:.2f}{of} GiB a device for the step; "
        f"at most {figures['memory_peak_bytes'] / 2**30:.2f} GiB in use",
        "loader": "not read: synthetic rows"
        if headroom is None
        else f"{headroom:.1f} x the step's need",
    }
    return "\n".join(f"{name:14} {value}" for name, value in lines.items())
