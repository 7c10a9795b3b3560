"""TPU slices by name, `v5e:4x4` or `v5e-16`, two of them `2xv5e:4x4`: devices to compile for without having them."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from electra_jax.plan.chips import BOX, CHIPS, GPUS, Chip
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
_ALIASES = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "v6lite": "v6e",
    "v7x": "tpu7x",
    "ironwood": "tpu7x",
}
_SEVERAL = re.compile(r"([^:]*?)x((?:v|tpu|ironwood)\w*[:-].*)")


@dataclass(frozen=True)
class Topology:
    """Slices of one kind of TPU and one size, joined by the data-centre network; mostly one."""

    version: str  # a key of CHIPS
    sides: tuple[int, ...]  # chips along each dimension of a slice
    slices: int = 1

    @property
    def slice(self) -> str:
        """One of the slices as JAX spells it: v4:2x2x1."""
        return f"{self.version}:{'x'.join(map(str, self.sides))}"

    @property
    def name(self) -> str:
        """All of them: v4:2x2x1, or 2xv4:2x2x1."""
        return self._several(self.slice)

    @property
    def accelerator(self) -> str:
        """As Google Cloud counts a slice: v4-8 (cores on v4, v5p and tpu7x, chips on v5e and v6e), or 2xv4-8."""
        return self._several(f"{self.version}-{math.prod(self.sides) * self.chip.cores}")

    def _several(self, slice: str) -> str:
        return slice if self.slices == 1 else f"{self.slices}x{slice}"

    @property
    def chip(self) -> Chip:
        """What each of its chips can do."""
        return CHIPS[self.version]

    @property
    def chips(self) -> int:
        """How many in all slices."""
        return self.slices * math.prod(self.sides)

    @property
    def size(self) -> int:
        """JAX devices in all slices."""
        return self.chips * self.chip.devices

    @property
    def egress(self) -> float:
        """Bytes/s that a device of the least connected chip can send inside its slice: a link for every side longer
        than one chip, two in a ring, shared by the devices of the chip.
        """
        links = (0 if side == 1 else 2 if side % self.chip.wraps == 0 else 1 for side in self.sides)
        return sum(links) * self.chip.link / self.chip.devices

    @property
    def network(self) -> float:
        """Bytes/s that a device can send to other slices; 0 where there are none."""
        return self.chip.network if self.slices > 1 else 0.0


def parse(name: str) -> Topology:
    """The slices of a name in either spelling; UserError lists the known ones, and says how several are written."""
    several = _SEVERAL.fullmatch(name)
    if several is None:
        return _slice(name)
    count, one = several.groups()
    if not re.fullmatch(r"0*[1-9]\d*", count):
        raise UserError(
            f"topology {name!r}: {count!r} is no number of slices; write a whole number of at least 1 before the "
            f"slice, such as 2x{one}"
        )
    return dataclasses.replace(_slice(one), slices=int(count))


def _slice(name: str) -> Topology:
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
    gpus = [f"{gpu}-{n}" for gpu in GPUS for n in (1, BOX)]
    guess = nearest(name, [*names, *gpus, CPU])
    hint = f" Did you mean {guess!r}?" if guess else ""
    known = "".join(f"\n  {line}" for line in lists.values())
    return UserError(
        f"unknown topology {name!r}.{hint} Known: {CPU} (this machine), {', '.join(gpus)} (GPUs), and{known}"
    )


def require_libtpu() -> None:
    """Raises UserError when the TPU compiler is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "planning for a TPU needs its compiler, which is not installed here (no TPU is needed): "
            "pip install 'electra_jax[tpu]'; --topology cpu works without"
        )


def devices(topology: Topology) -> Sequence[jax.Device]:
    """Devices to compile for, those of all slices; UserError where this libtpu does not know the slice."""
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
    if math.prod(topology.sides) == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)  # libtpu takes a host to have four chips
    if topology.slices > 1:
        more["num_slices"] = topology.slices
    try:
        found = topologies.get_topology_desc(topology.slice, "tpu", **more).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(f"this libtpu has no topology {topology.name}: {reason}") from error
    if len(found) != topology.size:
        raise UserError(
            f"this libtpu makes {len(found)} devices of the {topology.chips} chips of {topology.name}; "
            f"the planner counts {topology.size}"
        )
    return found
