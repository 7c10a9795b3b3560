"""Rows of a small table."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def take_of_few(table_TxE: jax.Array, ids_BxL: jax.Array) -> jax.Array:
    """Rows [B, L, E] of a table that has only a few, by ids in [0, T).

    Its gradient is a sum over the whole batch for each of them: where nearly all tokens have the same id, a GPU that
    scatters waits for the one row that all write to.
    """
    return jnp.take(table_TxE, ids_BxL, axis=0)


def _forward(table_TxE: jax.Array, ids_BxL: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return take_of_few(table_TxE, ids_BxL), (table_TxE, ids_BxL)


def _backward(saved: tuple[jax.Array, ...], slope_BxLxE: jax.Array) -> tuple[jax.Array, None]:
    table_TxE, ids_BxL = saved
    rows = [
        jnp.sum(jnp.where((ids_BxL == t)[..., None], slope_BxLxE, 0), axis=(0, 1))
        for t in range(table_TxE.shape[0])
    ]
    return jnp.stack(rows).astype(table_TxE.dtype), None


take_of_few.defvjp(_forward, _backward)
