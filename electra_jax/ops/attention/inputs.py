"""What self-attention takes: projections, which keys a query sees, and how queries and keys are rotated."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops.noise import Noise


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


class Rotation(NamedTuple):
    """Rotary position embeddings (Su et al., arXiv:2104.09864), for heads of C channels.

    Cosines and sines of every position's angles, float32 [B, L, C / 2].
    """

    cos_BxLxA: jax.Array
    sin_BxLxA: jax.Array

    @staticmethod
    def of(positions_BxL: jax.Array, channels: int, base: float = 10_000.0) -> "Rotation":
        """The angle number a of a position p is p / base^(2 a / C).

        The rates are rounded as PyTorch rounds them in transformers' ModernBERT: a last digit of a rate is 1e-3 of a
        turn at position 8,192, and models come from there and go there.
        """
        exponents_A = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
        rates_A = np.float32(1) / (base ** exponents_A.astype(np.float64)).astype(np.float32)
        angles_BxLxA = positions_BxL.astype(jnp.float32)[..., None] * rates_A
        return Rotation(jnp.cos(angles_BxLxA), jnp.sin(angles_BxLxA))

    def turn(self, x_BxLxHxC: jax.Array) -> jax.Array:
        """x with the pair (channel a, channel a + C / 2) turned by angle a, computed in float32, in x's dtype."""
        first, second = jnp.split(x_BxLxHxC.astype(jnp.float32), 2, axis=-1)
        cos, sin = self.cos_BxLxA[:, :, None], self.sin_BxLxA[:, :, None]
        turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return turned.astype(x_BxLxHxC.dtype)


class Inputs(NamedTuple):
    """The arrays of self-attention; without dropout `noise` is None, without a bias of the projections `bias_M`."""

    qkv_BxLxM: jax.Array
    bias_M: jax.Array | None
    mask: Mask
    noise: Noise | None = None
    rotation: Rotation | None = None

    def shape(self, heads: int) -> tuple[int, int, int]:
        """Rows, tokens of a row and channels of a head."""
        batch, length, triple = self.qkv_BxLxM.shape
        return batch, length, triple // 3 // heads

    def with_bias(self) -> "Inputs":
        """With zeros for the bias where there is none: for kernels that add one."""
        if self.bias_M is not None:
            return self
        return self._replace(bias_M=jnp.zeros(self.qkv_BxLxM.shape[-1:], jnp.float32))

    def bias(self) -> jax.Array:
        """The bias, which is there after `with_bias`."""
        assert self.bias_M is not None
        return self.bias_M

    def gradients(self, qkv_BxLxM: jax.Array, bias_M: jax.Array) -> "Inputs":
        """These gradients; mask and noise have none."""
        nothing: Any = None
        return Inputs(qkv_BxLxM, bias_M, nothing)

    def beyond_documents(self) -> str:
        """The first of what they ask for besides attention within documents; empty where they ask for nothing else."""
        if self.rotation is not None:
            return "rotary positions"
        if self.mask.window is not None:
            return f"a window of {self.mask.window} tokens"
        return "causal attention" if self.mask.causal else ""
