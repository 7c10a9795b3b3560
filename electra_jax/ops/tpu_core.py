"""What the TPU's kernels share: the core they run on, and array functions its compiler takes."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

LANES = 128
LEAST = 128 * 2**20  # bytes of memory: TPU v5e, v6e


def too_small() -> str:
    """That this TPU's core is smaller than those the kernels are compiled for in tests, if it is."""
    size = pltpu.get_tpu_info().vmem_capacity_bytes
    return f"cores with {size >> 20} MiB (but {LEAST >> 20})" if size < LEAST else ""


def room() -> int:
    """Bytes of the core's memory that a kernel may have."""
    return pltpu.get_tpu_info().vmem_capacity_bytes * 3 // 4


def column(row_1xN: jax.Array) -> jax.Array:
    """The row as a column, [N, 1]."""
    return jnp.broadcast_to(row_1xN, (LANES, row_1xN.shape[1])).T[:, :1]
