"""Rotary position embeddings (Su et al., arXiv:2104.09864): queries and keys turned by their positions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rotation(NamedTuple):
    """Cosines and sines of every position's angles, float32 [B, L, C / 2]; C: channels of a head."""

    cos_BxLxA: jax.Array
    sin_BxLxA: jax.Array

    @staticmethod
    def of(positions_BxL: jax.Array, channels: int, base: float = 10_000.0) -> "Rotation":
        """The angle number a of a position p is p / base^(2 a / C)."""
        rates_A = base ** (-2.0 * jnp.arange(channels // 2, dtype=jnp.float32) / channels)
        angles_BxLxA = positions_BxL.astype(jnp.float32)[..., None] * rates_A
        return Rotation(jnp.cos(angles_BxLxA), jnp.sin(angles_BxLxA))

    def turn(self, x_BxLxHxC: jax.Array) -> jax.Array:
        """x with the pair (channel a, channel a + C / 2) turned by angle a, computed in float32, in x's dtype."""
        first, second = jnp.split(x_BxLxHxC.astype(jnp.float32), 2, axis=-1)
        cos, sin = self.cos_BxLxA[:, :, None], self.sin_BxLxA[:, :, None]
        turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return turned.astype(x_BxLxHxC.dtype)
