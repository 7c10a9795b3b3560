"""The train step of a run, compiled for devices that need not be there, and weighed."""

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from electra_jax.data.source import Prepared
from electra_jax.learn import mesh
from electra_jax.plan.weighed import Weighed, weigh
from electra_jax.pretrain import options, program
from electra_jax.pretrain.options import RunSpec
from electra_jax.pretrain.program import Program

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLarge(Exception):
    """The compiler's refusal: bytes a device needs and has, and the largest allocations it names, "size shape op"."""

    def __init__(self, needed: int, limit: int, largest: tuple[str, ...]) -> None:
        super().__init__(needed, limit, largest)
        self.needed, self.limit, self.largest = needed, limit, largest
        self.state = 0  # bytes of the train state among those needed


@dataclass(frozen=True)
class Compiled:
    """A train step, compiled and weighed."""

    program: Program
    executable: Any
    weighed: Weighed
    seconds: float  # of tracing and compiling


def settle(
    run: RunSpec, data: Prepared, devices: Sequence[jax.Device], memory: int | None
) -> RunSpec:
    """The run with the mesh it would choose on these devices of `memory` bytes each, where its config leaves it open.

    Raises UserError where config, data and devices do not fit together.
    """
    chosen = program.choose_mesh(run, data, devices, memory)
    settled = dataclasses.replace(run, mesh=chosen)
    check(settled, data, devices)
    return settled


def check(run: RunSpec, data: Prepared, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh of the run on these devices; UserError where config, data and devices do not fit together."""
    grid = mesh.build(run.mesh, devices)
    options.check(run, run.phases(data)[0], grid.size)
    return grid


def compile_step(run: RunSpec, data: Prepared, devices: Sequence[jax.Device]) -> Compiled:
    """The step that `pretrain` would run on these devices, compiled.

    Raises UserError where config, data and devices do not fit together, TooLarge where the compiler finds no room.
    """
    built = program.build(run, run.phases(data)[0], check(run, data, devices))
    start = time.monotonic()
    try:
        executable = built.compile_train_step()
    except jax.errors.JaxRuntimeError as error:
        refusal = too_large(str(error))
        if refusal is None:
            raise
        refusal.state = _state_bytes(built)
        raise refusal from error
    seconds = time.monotonic() - start
    return Compiled(built, executable, weigh(executable), seconds)


def too_large(message: str) -> TooLarge | None:
    """What the TPU compiler says when a program does not fit; None for any other message."""
    used = re.search(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", message) or re.search(
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", message
    )
    if used is None:
        return None
    largest = []
    for entry in re.split(r"\n\s*\d+\. (?=Size: )", message)[1:]:
        size = re.search(r"Size: (\S+)", entry)
        shape = re.search(r"Shape: (\w+\[[\d,]*\])", entry)
        op = re.search(r'op_name="(?:jit\(\w+\)/)?([^"]*)"', entry)
        largest.append(" ".join(found[1] for found in (size, shape, op) if found))
    needed, limit = (round(float(used[i]) * _UNITS[used[i + 1]]) for i in (1, 3))
    return TooLarge(needed, limit, tuple(largest))


def _state_bytes(built: Program) -> int:
    """Bytes of the train state on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(built.abstract_state)
    )
