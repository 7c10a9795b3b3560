"""TPU slices by name: `v5e:4x4` or `v5e-16`, as devices that programs can be compiled for without having them."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from electra_jax.plan.chips import CHIPS, Chip
from electra_jax.spec import UserError, nearest

CPU = "cpu"
# Chips -> the slice of that size one gets by asking for a number, as on the pages that chips.py names.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
    1024: "8x8x16",
}
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v6lite": "v6e"}


@dataclass(frozen=True)
class Topology:
    """A slice of one kind of TPU."""

    version: str  # a key of CHIPS
    sides: tuple[int, ...]  # chips along each dimension

    @property
    def name(self) -> str:
        """As JAX spells it: v4:2x2x1."""
        return f"{self.version}:{'x'.join(map(str, self.sides))}"

    @property
    def accelerator(self) -> str:
        """As Google Cloud counts it: v4-8 (cores on v4 and v5p, chips on v5e and v6e)."""
        return f"{self.version}-{self.chips * self.chip.cores}"

    @property
    def chip(self) -> Chip:
        """What each of its chips can do."""
        return CHIPS[self.version]

    @property
    def chips(self) -> int:
        """How many; each is one JAX device."""
        return math.prod(self.sides)

    @property
    def egress(self) -> float:
        """Bytes/s that the least connected chip can send: a link for every side longer than one chip, two in a ring."""
        links = (0 if side == 1 else 2 if side % self.chip.wraps == 0 else 1 for side in self.sides)
        return sum(links) * self.chip.link


def parse(name: str) -> Topology:
    """The slice of a name in either spelling; UserError lists the known ones."""
    shaped = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    counted = re.fullmatch(r"(\w+)-(\d+)", name)
    found = shaped or counted
    version = _ALIASES.get(found[1], found[1]) if found else ""
    if found is None or version not in CHIPS:
        raise _unknown(name)
    chip, slices = CHIPS[version], _slices(version)
    if counted:
        chips, odd = divmod(int(counted[2]), chip.cores)
        if odd or chips not in slices:
            raise _unknown(name, version)
        shape = slices[chips]
    else:
        shape = found[2]
    sides = tuple(int(side) for side in shape.split("x"))
    if len(sides) != chip.dimensions or 0 in sides:
        raise _unknown(name, version)
    return Topology(version, sides)


def _slices(version: str) -> dict[int, str]:
    return _FLAT if CHIPS[version].dimensions == 2 else _DEEP


def _unknown(name: str, version: str | None = None) -> UserError:
    """The error for a name, with the slices of one version or of all."""
    lists = {
        v: ", ".join(f"{v}:{shape} = {v}-{n * CHIPS[v].cores}" for n, shape in _slices(v).items())
        for v in ([version] if version else CHIPS)
    }
    if version:
        return UserError(f"unknown topology {name!r}. Known: {lists[version]}")
    names = [f"{v}:{shape}" for v in CHIPS for shape in _slices(v).values()]
    guess = nearest(name, [*names, CPU])
    hint = f" Did you mean {guess!r}?" if guess else ""
    known = "".join(f"\n  {line}" for line in lists.values())
    return UserError(f"unknown topology {name!r}.{hint} Known: {CPU} (this machine), and{known}")


def require_libtpu() -> None:
    """Raises UserError when the TPU compiler is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "planning for a TPU needs its compiler, which is not installed here (no TPU is needed): "
            "pip install 'electra_jax[tpu]'; --topology cpu works without"
        )


def devices(topology: Topology) -> Sequence[jax.Device]:
    """Devices to compile for, one a chip; UserError where this libtpu does not know the slice."""
    require_libtpu()
    # Before libtpu is loaded: nothing here asks the cloud where it runs or takes a TPU that may be attached, and the
    # lock with which a process reserves the machine's TPU does not matter to a compiler.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    more: dict[str, Any] = {}
    if topology.version == "v4":
        more["chip_config_name"] = "megacore"  # both cores as one device, as they run
    if topology.chips == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)  # libtpu takes a host to have four chips
    try:
        found = topologies.get_topology_desc(topology.name, "tpu", **more).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(f"this libtpu has no topology {topology.name}: {reason}") from error
    if len(found) != topology.chips:
        raise UserError(
            f"this libtpu makes {len(found)} devices of the {topology.chips} chips of {topology.name}; "
            "the planner counts one device a chip"
        )
    return found
