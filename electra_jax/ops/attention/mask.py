"""Which keys a query sees."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["docs_BxL"], meta_fields=["window", "causal"]
)
@dataclass(frozen=True)
class Mask:
    """A position sees the positions whose document number equals its own, restricted by window and causal.

    Document 0 is padding: pads see only pads and no token sees a pad. `window` is the largest distance between query
    and key, None for any; `causal` hides later keys. Both are static.
    """

    docs_BxL: jax.Array
    window: int | None = None
    causal: bool = False

    @property
    def unsupported_by_documents(self) -> str:
        """The restriction that an implementation does not know which sees whole documents; empty without one."""
        if self.window is not None:
            return f"a window of {self.window} tokens"
        return "causal attention" if self.causal else ""

    def visible(self) -> jax.Array:
        """Whether the query sees the key, bool [B, L, L]."""
        visible_BxLxL = self.docs_BxL[:, :, None] == self.docs_BxL[:, None, :]
        if self.causal or self.window is not None:
            at_L = jnp.arange(self.docs_BxL.shape[1])
            distance_LxL = at_L[:, None] - at_L[None, :]
            if self.causal:
                visible_BxLxL &= (distance_LxL >= 0)[None]
            if self.window is not None:
                visible_BxLxL &= (jnp.abs(distance_LxL) <= self.window)[None]
        return visible_BxLxL
