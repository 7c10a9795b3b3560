"""The device mesh and the placement of every array: one ordered table of (path pattern, spec)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.spec import UserError
from electra_jax.train.arrays import path_name

ROWS = P(("data", "fsdp"))  # batches: rows over every device

# First match wins; a path that matches nothing is an error. Patterns meet parameters and, by their suffix, moments.
PLACEMENT = (
    (r"(^|/)word$", P("fsdp", None)),
    (r"/kernel$", P("fsdp", None)),
    (r"/(bias|scale|position|type)$", P()),
    (r"^(step|skipped/(total|run))$", P()),
    (r"/count$", P()),  # AdamW's step count
)


@dataclass(frozen=True)
class MeshSpec:
    """The config section `mesh`: how many devices along each axis; -1 takes what is left."""

    data: int  # rows split, parameters copied
    fsdp: int  # rows and parameters split


def build(spec: MeshSpec, over: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over these devices, by default all of all processes; UserError when its axes do not multiply to them.

    Programs can be compiled for devices that are not there, those of a named topology.
    """
    devices = jax.device_count() if over is None else len(over)
    sizes = {"data": spec.data, "fsdp": spec.fsdp}
    free = [name for name, size in sizes.items() if size == -1]
    fixed = 1
    for name, size in sizes.items():
        if size != -1 and size < 1:
            raise UserError(f"mesh.{name}={size} must be at least 1, or -1 for what is left")
        fixed *= max(size, 1)
    if len(free) == 1 and devices % fixed == 0:
        sizes[free[0]] = devices // fixed
    elif free or fixed != devices:
        raise UserError(
            f"mesh data={spec.data} x fsdp={spec.fsdp} does not fit {devices} device{'s' * (devices != 1)}; "
            f"the axes must multiply to {devices}, with at most one of them -1"
        )
    # Auto, by name: make_mesh's own default, Explicit, breaks modules that gather from sharded tables.
    return jax.make_mesh(
        (sizes["data"], sizes["fsdp"]),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto,) * 2,
        devices=over,
    )


def place(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a state (or its abstract shape), from PLACEMENT."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, spec in PLACEMENT:
            if re.search(pattern, name):
                _check_divides(name, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        raise UserError(f"no placement rule matches {name}; add one to PLACEMENT in train/mesh.py")

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _check_divides(name: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> None:
    for size, axis in zip(shape, spec, strict=False):  # a spec may be shorter
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"mesh.{axis}={mesh.shape[axis]} does not divide {name} of shape {list(shape)}; "
                f"choose a {axis} size that divides {size}"
            )
