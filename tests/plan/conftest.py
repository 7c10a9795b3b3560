"""A compiled TPU program in miniature, in the words of the compiler, and a real one for eight CPU devices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.plan.weighed import Weighed, weigh

# Written by hand after what libtpu prints: a loop of 3 turns around a matrix product, a product with a batch dimension
# as a dilated window, a permute with work between start and done, an all-reduce, a kernel, an update in place.
TPU = Path(__file__).parent / "program.hlo"


@pytest.fixture(scope="session")
def tpu() -> str:
    """The text of a small compiled TPU program."""
    return TPU.read_text()


@pytest.fixture(scope="session")
def compiled() -> Weighed:
    """A program of eight CPU devices, weighed: a scan of 6 products of rows that are split, summed over all."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, P())

    def step(w: jax.Array, xs: jax.Array) -> jax.Array:
        def turn(total: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            return total + jnp.tanh(x @ w).sum(0), None

        total, _ = jax.lax.scan(turn, jnp.zeros(w.shape[1]), xs)
        return w - total

    w = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=everywhere)
    rows = NamedSharding(mesh, P(None, "x"))
    xs = jax.ShapeDtypeStruct((6, 32, 64), jnp.float32, sharding=rows)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
    return weigh(jitted.lower(w, xs).compile())
