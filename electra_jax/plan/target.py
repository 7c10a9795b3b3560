"""What a topology's name stands for: devices to compile for, their memory, their rates, what is paid for."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from electra_jax.plan import cost, gpu, local, topology
from electra_jax.plan.cost import Machine
from electra_jax.pretrain.options import RunSpec


@dataclass(frozen=True)
class Target:
    """A machine to plan for."""

    name: str
    also: str  # its other spelling, in brackets
    devices: Sequence[jax.Device]
    machine: Callable[[], Machine]
    limit: int  # bytes of memory of a device
    local: bool
    chip: str  # as price tables name it
    chips: int = 0  # 0: not counted in chips
    slices: int = 1


def check_name(name: str) -> None:
    """Raises UserError for a name that stands for nothing; loads no compiler."""
    if name != topology.CPU and gpu.parse(name) is None:
        topology.parse(name)


def aim(name: str, run: RunSpec) -> Target:
    """The devices of a topology's name; UserError for an unknown one, or where the compiler is missing."""
    if name == topology.CPU:
        return _here(run)
    if box := gpu.parse(name):
        return Target(
            name=box.name,
            also="",
            devices=gpu.devices(box),
            machine=lambda: gpu.machine(box),
            limit=box.limit,
            local=False,
            chip=box.version,
            chips=box.size,
        )
    found = topology.parse(name)
    return Target(
        name=found.name,
        also=f" ({found.accelerator})",
        devices=topology.devices(found),
        machine=lambda: cost.tpu(found),
        limit=int(found.chip.available_gib * 2**30),
        local=False,
        chip=found.version,
        chips=found.chips,
        slices=found.slices,
    )


def _here(run: RunSpec) -> Target:
    devices = jax.devices()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Target(
        name=topology.CPU,
        also="",
        devices=devices,
        machine=lambda: local.machine(run.model.dtype, len(devices)),
        limit=memory // len(devices),
        local=True,
        chip=topology.CPU,
    )
