"""A learner's programs on a mesh: abstract states, jitted starts and steps, of one run or of several at once."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax import files
from electra_jax.learn import mesh as meshes

# Without it XLA takes fast GPU kernels that add in whatever order their threads arrive; no matter on CPU and TPU.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
_LEAST_COMPILE_TIME = "jax_persistent_cache_min_compile_time_secs"


def abstract(shapes: Any, mesh: Mesh, runs: int = 0) -> Any:
    """The ShapeDtypeStructs of a state on its devices, with an axis of `runs` in front where there are several."""
    lead, axis = ((runs,), (None,)) if runs else ((), ())

    def struct(s: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        placed = NamedSharding(mesh, P(*axis, *sharding.spec))
        return jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype, sharding=placed)

    return jax.tree.map(struct, shapes, meshes.place(shapes, mesh))


def shardings(abstract_state: Any) -> Any:
    """The sharding of every leaf."""
    return jax.tree.map(lambda s: s.sharding, abstract_state)


def rows(mesh: Mesh, runs: int = 0) -> NamedSharding:
    """Rows over every device, behind the axis of runs where there is one."""
    return NamedSharding(mesh, P(None, *meshes.ROWS) if runs else meshes.ROWS)


def jit_step(
    step: Callable[..., Any],
    mesh: Mesh,
    abstract_state: Any,
    *,
    runs: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """A train step compiled for the mesh: (state, batch) -> (state, sums); the state is donated."""
    traced = meshes.on_mesh(step, mesh)
    return jax.jit(
        jax.vmap(traced) if runs else traced,
        donate_argnums=0,
        out_shardings=(shardings(abstract_state), NamedSharding(mesh, P())),
        compiler_options=None if options is None else dict(options),
    )


def place_array(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array from a value every process holds whole; a transfer by name, also where others are forbidden."""
    with jax.transfer_guard("allow"):
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def place(tree: Any, placed: Any) -> Any:
    """Numpy arrays, which every process holds whole, as global arrays with these shardings."""
    return jax.tree.map(place_array, tree, placed)


def to_host(tree: Any) -> Any:
    """Global arrays as numpy, whole in every process; with several processes all of them call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        home = files.user_cache() / "electra_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(home))
    if _LEAST_COMPILE_TIME.upper() not in os.environ:
        # A start compiles thirty small programs, too, none of which takes JAX's whole second.
        jax.config.update(_LEAST_COMPILE_TIME, 0.0)
