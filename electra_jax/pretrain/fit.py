"""Does a compiled step fit its devices? If not: how much it needs, and which batch or recomputation fits."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from electra_jax.learn.mesh import memory_per_device
from electra_jax.model.electra import REMATS
from electra_jax.pretrain import program
from electra_jax.pretrain.options import Phase, RunSpec
from electra_jax.spec import UserError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MOST_TRIES = 5  # compilations spent on the advice

Need = Callable[[int, str], int]  # (rows of a micro-batch, model.remat) -> bytes of one device


def compile_that_fits(run: RunSpec, phase: Phase, built: program.Program) -> Any:
    """The compiled train step of a phase; UserError when it needs more memory than a device has.

    The error says how much was needed and had, and which batch, accumulation or recomputation fits.
    It takes up to MOST_TRIES compilations more to find out, only when the step does not fit.
    """
    limit = capacity(built.mesh)
    compiled, need = _try(built)
    if limit is None or need <= limit:
        if compiled is None:
            raise UserError(f"the train step of {phase.batch} rows does not fit the device")
        return compiled

    def needed_by(rows: int, remat: str) -> int:
        smaller = dataclasses.replace(phase, batch=rows, accumulation=1)
        model = dataclasses.replace(run.model, remat=remat)
        other = dataclasses.replace(run, model=model)
        return _try(program.build(other, smaller, built.mesh))[1]

    rows = phase.batch // phase.accumulation
    raise UserError(
        f"a step of {rows} rows of {phase.data.seq_len} tokens needs {_gib(need)} on each device, which has "
        f"{_gib(limit)}; {advice(needed_by, limit, need, phase, run.model.remat, built.mesh.size)}"
    )


def advice(need: Need, limit: int, known: int, phase: Phase, remat: str, unit: int) -> str:
    """What would fit `limit` bytes, as flags; `known` is what the phase needs as it is.

    Memory grows in a straight line with the rows of a micro-batch once its fixed part is known, so
    two sizes tell the largest that fits; it is compiled before it is recommended.
    """
    rows, tries, found = phase.batch // phase.accumulation, 0, []
    for more in REMATS[REMATS.index(remat) + 1 :]:
        tries += 1
        if need(rows, more) <= limit:
            found.append(f"--config.model.remat={more}")
            break
    at, size = rows, known
    best = max(unit, rows // 2 // unit * unit)
    while tries < MOST_TRIES:
        tries += 1
        size_best = need(best, remat)
        if size_best <= limit:
            parts = -(-phase.batch // best)
            while phase.batch % parts or phase.batch // parts % unit:
                parts += 1
            if parts > phase.accumulation and phase.batch // parts <= best:
                found.append(f"--config.train.accumulation={parts} (the same batch in parts)")
            found.append(f"--config.train.batch={best * phase.accumulation}")
            break
        slope = (size - size_best) / max(1, at - best)
        fixed = size_best - slope * best
        at, size = best, size_best
        guess = int((limit - fixed) / slope * 0.95) if slope > 0 else 0
        smaller = max(unit, min(guess, best - unit) // unit * unit)
        if smaller == best:
            break
        best = smaller
    if not found:
        return (
            f"even {best} rows do not fit: use --config.mesh.fsdp to split the parameters over more "
            "devices, or a device with more memory"
        )
    return f"what fits: {', or '.join(found)}"


def needed(compiled: Any) -> int:
    """Bytes a compiled step holds on one device at once: arguments, temporaries, and outputs that reuse neither."""
    m = compiled.memory_analysis()
    return (
        m.argument_size_in_bytes
        + m.temp_size_in_bytes
        + m.output_size_in_bytes
        - m.alias_size_in_bytes
    )


def capacity(mesh: Mesh) -> int | None:
    """Bytes a device of the mesh can hold, on CPU its share of the machine's memory; None if unknown."""
    if mesh.local_devices[0].platform == "cpu":
        total = _machine_memory()
        return None if total is None else total // len(mesh.local_devices)
    return memory_per_device()


def _machine_memory() -> int | None:
    """The memory of the machine or of the container we are in (Linux), whichever is less."""
    found = []
    for path, pattern in (
        ("/proc/meminfo", r"MemTotal:\s+(\d+) kB"),
        ("/sys/fs/cgroup/memory.max", r"^(\d+)$"),
    ):
        try:
            match = re.search(pattern, Path(path).read_text(), re.M)
        except OSError:
            continue
        if match:
            found.append(int(match[1]) * (1024 if "meminfo" in path else 1))
    return min(found, default=None)


def _try(built: program.Program) -> tuple[Any, int]:
    """(the compiled step, or None where the compiler itself refuses its size; bytes needed on a device)."""
    try:
        compiled = built.compile_train_step()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None, _said(str(error))
    return compiled, needed(compiled)


def _said(message: str) -> int:
    """The bytes a compiler's out-of-memory message names ("Used 20.9G of 15.75G hbm")."""
    used = re.search(r"[Uu]sed ([\d.]+)([KMGT]?)i?B? of", message)
    return int(float(used[1]) * _UNITS[used[2]]) if used else 2**62


def _gib(size: int) -> str:
    return "more" if size >= 2**62 else f"{size / 2**30:.2f} GiB"
