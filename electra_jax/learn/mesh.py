"""The device mesh and the placement of every array: one ordered table of (path pattern, spec)."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.learn.arrays import flatten, path_name
from electra_jax.spec import UserError

ROWS = P(("data", "fsdp"))  # batches: rows over every device

# First match wins; a path that matches nothing is an error. Patterns meet parameters and, by their suffix, moments.
PLACEMENT = (
    (r"(^|/)word$", P("fsdp", None)),
    (r"/kernel$", P("fsdp", None)),
    (r"/(bias|scale|position|type)$", P()),
    (r"^(step|share|seed|peak_lr|skipped/(total|run))$", P()),
    (r"/count$", P()),  # AdamW's step count
    (r"^carried/", P()),
)


@dataclass(frozen=True)
class MeshSpec:
    """The config section `mesh`: how many devices along each axis; -1 takes what is left, two of them are chosen."""

    data: int  # rows split, parameters copied; over all slices
    fsdp: int  # rows, parameters and optimizer state split; inside a slice
    deterministic: bool = False  # GPU: only kernels that give the same bits every time, some slower


# Of a device's memory, for what training keeps between steps and the gradient; the rest is for activations.
STATE_SHARE = 0.25


def choose(
    spec: MeshSpec, state: Any, devices: int, memory: int | None, slices: int = 1
) -> MeshSpec:
    """`spec`, with the axes filled in where both are -1: as little `fsdp` as the memory of a device allows.

    `state` is the abstract train state; with a gradient as large as its parameters it gets STATE_SHARE of `memory`
    (bytes; None, unknown, counts as enough). Splitting costs traffic, so it begins only where copies do not fit, and
    ends at the border of a slice.
    """
    if (spec.data, spec.fsdp) != (-1, -1):
        return spec
    gradient = [leaf for name, leaf in flatten(state).items() if name.startswith("params/")]
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in [*jax.tree.leaves(state), *gradient])
    sizes = _split_sizes(state)
    possible = [n for n in _divisors(devices // slices) if all(size % n == 0 for size in sizes)]
    enough = [n for n in possible if memory is None or needed / n <= STATE_SHARE * memory]
    fsdp = enough[0] if enough else possible[-1]
    return dataclasses.replace(spec, data=devices // fsdp, fsdp=fsdp)


def memory_per_device() -> int | None:
    """Bytes that this process's first device offers to JAX; None where the platform does not say (CPU)."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def by_slice(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """The devices of each TPU slice, in the order of the slices; all in one where the platform knows no slices.

    Raises UserError for slices of different sizes.
    """
    found: dict[int, list[jax.Device]] = {}
    for device in devices:
        found.setdefault(getattr(device, "slice_index", 0), []).append(device)
    slices = [found[index] for index in sorted(found)]
    if len({len(slice) for slice in slices}) > 1:
        raise UserError(
            f"the slices of this run have {', '.join(str(len(slice)) for slice in slices)} devices; "
            "a mesh needs slices of one size"
        )
    return slices


def build(spec: MeshSpec, over: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over these devices, by default all of all processes; UserError when its axes do not multiply to them.

    Of several TPU slices `data` spans all, and `fsdp`, which exchanges more, lies inside each. Programs can be
    compiled for devices that are not there, those of a named topology.
    """
    slices = by_slice(jax.devices() if over is None else over)
    sizes = _sizes(spec, sum(map(len, slices)), len(slices))
    # Auto, by name: Explicit axes break modules that gather from sharded tables.
    return Mesh(arrange(slices, *sizes), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def arrange(slices: Sequence[Sequence[jax.Device]], data: int, fsdp: int) -> np.ndarray:
    """The devices as [data, fsdp]: slice after slice along `data`, neighbours on the chips' links inside each."""
    inside = (data // len(slices), fsdp)
    # A side of the chips' grid is split between the axes only where it has to be.
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(inside, slices[0], allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(
        inside,
        (len(slices), 1),
        [device for slice in slices for device in slice],
        allow_split_physical_axes=True,
    )


def _sizes(spec: MeshSpec, devices: int, slices: int) -> tuple[int, int]:
    """(data, fsdp) with -1 filled in; UserError where they do not fit the devices and slices."""
    sizes = {"data": spec.data, "fsdp": spec.fsdp}
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) == 2:
        free, sizes["fsdp"] = ["data"], 1
    fixed = 1
    for name, size in sizes.items():
        if size != -1 and size < 1:
            raise UserError(f"mesh.{name}={size} must be at least 1, or -1 for what is left")
        fixed *= max(size, 1)
    asked = f"mesh data={spec.data} x fsdp={spec.fsdp} does not fit"
    nearest = f"nearest that fits: {_nearest(spec, devices, slices)}"
    if len(free) == 1 and devices % fixed == 0:
        sizes[free[0]] = devices // fixed
    elif free or fixed != devices:
        raise UserError(
            f"{asked} {devices} device{'s' * (devices != 1)}; "
            f"the axes must multiply to {devices}, and -1 takes what is left; {nearest}"
        )
    if sizes["data"] % slices:
        raise UserError(
            f"{asked} {slices} slices of {devices // slices} devices: data spans the slices and must be a multiple "
            f"of {slices}, and fsdp lies inside a slice and must divide {devices // slices}; {nearest}"
        )
    return sizes["data"], sizes["fsdp"]


NAMES = "one whose last name is kernel, word, bias, scale, position or type (PLACEMENT in learn/mesh.py)"


def is_placed(name: str) -> bool:
    """Whether PLACEMENT has a rule for the array of this path."""
    return any(re.search(pattern, name) for pattern, _ in PLACEMENT)


def on_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, telling the operations it is made of which devices it will run on, which choose their kernels."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def whole(x: jax.Array) -> jax.Array:
    """x whole on every device of the mesh that the program being traced is made for."""
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.size <= 1 else jax.lax.with_sharding_constraint(x, P())


def place(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a state (or its abstract shape), from PLACEMENT."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, spec in PLACEMENT:
            if re.search(pattern, name):
                _check_divides(name, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        raise UserError(f"no placement rule matches {name}; add one to PLACEMENT in learn/mesh.py")

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _nearest(spec: MeshSpec, devices: int, slices: int) -> str:
    """The mesh over this many devices that is fewest doublings away, as the words of the error."""

    def distance(fsdp: int) -> tuple[float, float]:
        apart = [
            abs(math.log2(have / want)) if want != -1 else 0.0
            for have, want in ((fsdp, spec.fsdp), (devices // fsdp, spec.data))
        ]
        return round(sum(apart), 6), apart[0]

    fsdp = min(_divisors(devices // slices), key=distance)
    return f"data={devices // fsdp} x fsdp={fsdp}"


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _split_sizes(state: Any) -> set[int]:
    """The sizes of all axes that PLACEMENT splits."""
    sizes = set()
    for name, leaf in flatten(state).items():
        spec = next((spec for pattern, spec in PLACEMENT if re.search(pattern, name)), P())
        sizes |= {n for n, axis in zip(leaf.shape, spec, strict=False) if axis is not None}
    return sizes


def gather_tables(params: Any, mesh: Mesh) -> Any:
    """The parameters with the word table whole on every device, for the time of a step.

    Left split by words, the vocabulary head would have its devices exchange logits, [rows, K, V], which are many
    times larger than the table.
    """
    if mesh.shape["fsdp"] == 1:
        return params
    whole = NamedSharding(mesh, P())

    def arrange(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        is_table = re.search(PLACEMENT[0][0], path_name(path))
        return jax.lax.with_sharding_constraint(x, whole) if is_table else x

    return jax.tree_util.tree_map_with_path(arrange, params)


def _check_divides(name: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> None:
    for size, axis in zip(shape, spec, strict=False):  # a spec may be shorter
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(
                f"mesh.{axis}={mesh.shape[axis]} does not divide {name} of shape {list(shape)}; "
                f"choose a {axis} size that divides {size} and the {mesh.size} devices, such as "
                f"{_divisors(math.gcd(size, mesh.size))[-1]}"
            )
