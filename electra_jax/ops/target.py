"""The devices that the program being traced will run on, and what it does without on them."""

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec as P
from tqdm import tqdm


def platform() -> str | None:
    """That of the mesh in `jax.sharding.use_abstract_mesh`: tpu, gpu, cpu; None where the program names none."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return None
    return "gpu" if device.platform == "cuda" else device.platform


def on_hopper() -> bool:
    """Whether they are H100s or H200s, which this package's kernels for GPUs were made for and measured on."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if platform() != "gpu" or not re.search(r"\bG?H[12]00\b", device.device_kind):
        return False
    if importlib.util.find_spec("jax.experimental.pallas.triton") is None:
        tell("no kernels for this GPU: this jax has no Triton backend of Pallas any more")
        return False
    return True


def apart(x: jax.Array) -> jax.Array:
    """x; where the program is for a CPU, as an array of its own, made once.

    XLA's compiler for CPUs otherwise computes cheap arrays anew wherever they are used, in the order of that use, or
    keeps what it can share between forward and backward pass, however large.
    """
    return jax.lax.optimization_barrier(x) if platform() == "cpu" else x


def by_kernel(
    what: str,
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    obstacle: Callable[[int], str],
    arrays: Sequence[Any],
    by_row: tuple[bool, ...],
    **options: Hashable,
) -> Any:
    """What the kernel makes of these arrays, each device for its own rows; where it can't, what `plain` makes of them.

    `obstacle` tells what the kernel does not support of so many rows ("": nothing); `by_row` which arrays (or trees of
    them) are split by rows along their first axis, as the first of them is and the result; both functions take the
    options, too. What goes without its kernel is told once, as "`what` without the GPU's kernel".
    """
    mesh = jax.sharding.get_abstract_mesh()
    batch = arrays[0].shape[0]
    why = (
        f"{batch} rows on {mesh.size} devices"
        if batch % mesh.size
        else obstacle(batch // mesh.size)
    )
    if why:
        whose = "TPU" if platform() == "tpu" else "GPU"
        tell(f"{what} without the {whose}'s kernel: it does not support {why}")
        return plain(*arrays, **options)
    return _for_all_layers(kernel, by_row, tuple(options.items()))(*arrays)


@functools.cache
def _for_all_layers(
    kernel: Callable[..., Any], by_row: tuple[bool, ...], options: tuple[tuple[str, Hashable], ...]
) -> Callable[..., Any]:
    """One function for all of them, so that JAX traces the kernel and makes its code once, not for every layer."""
    with_options = functools.partial(kernel, **dict(options))
    return jax.jit(lambda *arrays: on_rows(with_options, arrays, by_row))


def on_rows(function: Callable[..., Any], arrays: Sequence[Any], by_row: Sequence[bool]) -> Any:
    """What the function makes of these arrays where every device of the mesh calls it for its own rows."""
    rows = P(jax.sharding.get_abstract_mesh().axis_names)
    specs = tuple(rows if split else P() for split in by_row)
    # A kernel says nothing of how its results vary over the mesh, which the check would want.
    return jax.shard_map(function, in_specs=specs, out_specs=rows, check_vma=False)(*arrays)


@functools.cache
def tell(line: str) -> None:
    """Writes the line to stderr once a process, above a progress bar if one is shown."""
    tqdm.write(line, file=sys.stderr)
