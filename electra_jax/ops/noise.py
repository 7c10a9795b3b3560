"""Addressed noise: random numbers that are a function of (key, global row, site, element), never of a stream.

A number depends on where it is used, not on how the work is split, so micro-batches, shards, tiles and processes all
see the same masks, samples and dropout. Row keys come from threefry (`jax.random.fold_in`); elements from a keyed
32-bit integer hash, two rounds of the multiply-xorshift mixer "lowbias32" (C. Wellons, "Prospecting for hash
functions", 2018, public domain), which costs about a fifth of threefry's twenty rounds per element; dropout's from
one round under the key of their line.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)  # 2**32 / golden ratio: spreads small site numbers over all bits


class Noise(NamedTuple):
    """One 64-bit key per row; `at` derives the keys of a site (a layer's dropout, a mask draw) from them."""

    low_B: jax.Array  # uint32
    high_B: jax.Array  # uint32

    def at(self, site: int) -> "Noise":
        """The noise of one site; sites are small static integers, unique within a key."""
        salt = np.uint32((site + 1) * int(_GOLDEN) & 0xFFFFFFFF)
        low_B = _mix(self.low_B ^ salt)
        return Noise(low_B, _mix(self.high_B + low_B))


def seed_key(seed: int) -> jax.Array:
    """The typed key of a seed, of any 64 bits: `jax.random.key` alone takes a seed modulo 2**32 without 64-bit mode.

    Of a seed that fits 32 bits, signed or not, it is that key.
    """
    key = jax.random.key(seed)
    if -(2**31) <= seed < 2**32:
        return key
    return jax.random.fold_in(key, np.uint32(seed >> 32 & 0xFFFFFFFF))


def for_rows(key: jax.Array, rows_B: jax.Array) -> Noise:
    """Noise for the rows with these global numbers under a typed key."""
    data_Bx2 = jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(key, row)))(rows_B)
    return Noise(data_Bx2[:, 0], data_Bx2[:, 1])


def bits(noise: Noise, counter: jax.Array) -> jax.Array:
    """Hashed bits, uint32 [B, *counter.shape], of the elements numbered by `counter` (uint32)."""
    expand = (slice(None),) + (None,) * counter.ndim
    return hashed(counter[None], noise.low_B[expand], noise.high_B[expand])


def hashed(counter: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The bits of these elements under keys of a shape that broadcasts with theirs; all uint32."""
    return _mix(_mix(counter ^ low) + high)


def count(*shape: int) -> jax.Array:
    """Element numbers 0.. in row-major order, uint32 of this shape."""
    total = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(np.prod(shape[axis + 1 :], dtype=np.int64))
        total += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return total


def uniform(noise: Noise, counter: jax.Array) -> jax.Array:
    """Uniform float32 strictly inside (0, 1), 23 bits fine."""
    return _uniform(bits(noise, counter))


def gumbel(noise: Noise, counter: jax.Array) -> jax.Array:
    """Standard Gumbel noise, float32: -log(-log(u))."""
    return gumbel_of(bits(noise, counter))


def gumbel_of(bits: jax.Array) -> jax.Array:
    """The Gumbel noise that these hashed bits stand for."""
    return -jnp.log(exponential_of(bits))


def exponential_of(bits: jax.Array) -> jax.Array:
    """The exponential variable whose negative logarithm is that noise."""
    return -jnp.log(_uniform(bits))


def integers(noise: Noise, counter: jax.Array, high: int) -> jax.Array:
    """Integers in [0, high), int32; the bias of the modulus is below high / 2**32."""
    return (bits(noise, counter) % np.uint32(high)).astype(jnp.int32)


def dropout(x: jax.Array, rate: float, noise: Noise | None) -> jax.Array:
    """Inverted dropout of x [B, ...]; `noise=None` or rate 0 leaves x as it is."""
    if noise is None or rate == 0.0:
        return x
    *outer, last = x.shape[1:] or (1,)
    line_BxN = bits(noise, count(*outer))[..., None]
    drop = (along(line_BxN, count(last)) < threshold(rate)).reshape(x.shape)
    return jnp.where(drop, jnp.zeros((), x.dtype), x * np.asarray(1 / (1 - rate), x.dtype))


def along(line: jax.Array, at: jax.Array) -> jax.Array:
    """The bits of a line's elements at these places, all uint32, of shapes that broadcast.

    A line is what an array has along its last axis; the bits of its own number are its key. One round of the mixer is
    enough from there, so that an element of a large array costs half of what `bits` does. Its last step, which changes
    the lower half of the bits, is left out: no comparison with a threshold would notice. Places are spread over all
    bits first: small differences the mixer alone does not quite hide.
    """
    return _half_mixed(line + at * _GOLDEN)


def threshold(rate: float) -> np.uint32:
    """Dropout drops the elements whose bits are below this."""
    return np.uint32(round(rate * 2**32))


def _uniform(bits: jax.Array) -> jax.Array:
    # With 24 bits the highest number plus a half rounds to 1, whose Gumbel noise is infinite. By way of int32, which
    # holds all 23 bits: TPU kernels convert no unsigned numbers.
    return ((bits >> 9).astype(jnp.int32).astype(jnp.float32) + 0.5) * np.float32(2**-23)


def _mix(x: jax.Array) -> jax.Array:
    x = _half_mixed(x)
    return x ^ (x >> 16)


def _half_mixed(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    return (x ^ (x >> 15)) * np.uint32(0x846CA68B)
