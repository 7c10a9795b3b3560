"""Rows of a small table."""

import jax
import jax.numpy as jnp

from electra_jax.ops import gradient
from electra_jax.ops.kernel import Implementation, Operation


def take_of_few(table_TxE: jax.Array, ids_BxL: jax.Array) -> jax.Array:
    """Rows [B, L, E] of a table that has only a few, by ids in [0, T).

    Its gradient is a sum over the whole batch for each of them: where nearly all tokens have the same id, a GPU that
    scatters waits for the one row that all write to.
    """
    return _TAKE(table_TxE, ids_BxL)


def _gradients(
    arguments: tuple[jax.Array, ...], cotangent_BxLxE: jax.Array
) -> tuple[jax.Array, None]:
    table_TxE, ids_BxL = arguments
    rows = [
        jnp.sum(jnp.where((ids_BxL == t)[..., None], cotangent_BxLxE, 0), axis=(0, 1))
        for t in range(table_TxE.shape[0])
    ]
    return jnp.stack(rows).astype(table_TxE.dtype), None


def _plain(table_TxE: jax.Array, ids_BxL: jax.Array) -> jax.Array:
    return jnp.take(table_TxE, ids_BxL, axis=0)


_TAKE = Operation(
    "take_of_few",
    Implementation(name="by_hand", run=gradient.by_hand(_gradients)(_plain)),
    Implementation(name="plain", run=_plain),
)
