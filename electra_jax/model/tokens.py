"""What a network reads of a batch, as one value."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp


class Tokens(NamedTuple):
    """The tokens of B rows of length L: four int32 arrays [B, L]."""

    ids: jax.Array
    types: jax.Array  # the kind of segment
    docs: (
        jax.Array
    )  # number of the document within the row, 0 for padding; equal numbers see each other
    positions: jax.Array  # place within the document

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> Self:
        """The tokens of a batch. A batch without positions has one document a row: they are the places in the row."""
        ids_BxL = batch["ids"]
        if "positions" in batch:
            positions_BxL = batch["positions"]
        else:
            positions_BxL = jnp.broadcast_to(jnp.arange(ids_BxL.shape[1]), ids_BxL.shape)
        return cls(ids_BxL, batch["types"], batch["docs"], positions_BxL)

    @classmethod
    def single(cls) -> Self:
        """One row of one token, for `init`, where shapes of parameters depend on no other."""
        return cls(*[jnp.zeros((1, 1), jnp.int32)] * 4)
