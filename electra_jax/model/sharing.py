"""Gradient-disentangled embedding sharing (DeBERTaV3, arXiv:2111.09543): a table as another's, plus a delta of its own.

The parameters hold the delta in the table's place. What a network uses is the sum; the other network's table is in it
without a gradient. Tables are the arrays that lie directly under an embedding module (word, position, type); what lies
deeper (a LayerNorm) belongs to each network alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Where the deltas are, and the tables that they are added to.
DELTAS, TABLES = "embeddings", "generator_embeddings"


def summed(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with sums in place of the deltas."""
    return _with_deltas(params, lambda name, x: jax.lax.stop_gradient(params[TABLES][name]) + x)


def started(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with deltas of zero: both networks begin with the same tables."""
    return _with_deltas(params, lambda name, x: jnp.zeros_like(x))


def _with_deltas(
    params: Mapping[str, Any], of: Callable[[str, jax.Array], jax.Array]
) -> dict[str, Any]:
    embeddings = {
        name: x if isinstance(x, Mapping) else of(name, x) for name, x in params[DELTAS].items()
    }
    return {**params, DELTAS: embeddings}


def is_table(path: str, module: str = DELTAS) -> bool:
    """Whether the parameter of this path ("embeddings/word") is a table of the module."""
    return path.rpartition("/")[0] == module


def difference(whole: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A delta, float32, for which table + delta is the whole again.

    To the last bit where the whole was once such a sum; else to rounding (half a unit in the last place of the larger).
    """
    delta = (whole.astype(np.float64) - table).astype(np.float32)
    for towards in (np.inf, -np.inf):
        beside = np.nextafter(delta, np.float32(towards))
        delta = np.where((table + delta != whole) & (table + beside == whole), beside, delta)
    return delta
