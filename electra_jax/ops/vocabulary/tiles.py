"""The vocabulary head in one pass over tiles of the vocabulary; no array of all logits is ever made.

Softmax, entropy and the likeliest id are kept as running sums and maxima (online log-sum-exp: Milakov and
Gimelshein, arXiv:1805.02867), so is the sample (`samplers.py`), and the backward pass computes
each tile's logits a second time. A tile takes in cache what [B, K, V] would take in memory.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import dense, kernel, machine
from electra_jax.ops.vocabulary.samplers import SAMPLERS, Best, pick
from electra_jax.ops.vocabulary.slots import (
    ROWS,
    HeadOptions,
    Inputs,
    PerSlot,
    gradients,
    sampling_logits,
)


class _Sums(NamedTuple):
    """A softmax seen so far: its maximum, sum of exp(logit - max), and of that times (logit - max)."""

    top: jax.Array
    total: jax.Array
    moment: jax.Array

    @staticmethod
    def start(like_BxK: jax.Array) -> "_Sums":
        zeros = jnp.zeros(like_BxK.shape, jnp.float32)
        # A finite start: the difference of two infinities is no number.
        return _Sums(zeros + np.finfo(np.float32).min, zeros, zeros)

    def add(self, logits_BxKxT: jax.Array) -> "_Sums":
        top = jnp.maximum(self.top, jnp.max(logits_BxKxT, axis=-1))
        fall = jnp.maximum(self.top - top, -1e9)
        shrink = jnp.exp(fall)
        below_BxKxT = jnp.maximum(logits_BxKxT - top[..., None], -1e9)  # ids that are padding: -inf
        weight_BxKxT = jnp.exp(below_BxKxT)
        return _Sums(
            top,
            self.total * shrink + jnp.sum(weight_BxKxT, axis=-1),
            (self.moment + self.total * fall) * shrink
            + jnp.sum(weight_BxKxT * below_BxKxT, axis=-1),
        )

    def log_norm(self) -> jax.Array:
        return self.top + jnp.log(self.total)

    def entropy(self) -> jax.Array:
        return jnp.log(self.total) - self.moment / self.total


def run(inputs: Inputs, options: HeadOptions) -> PerSlot:
    """Loss, entropy, likeliest id, sample and its log-probability of every slot; only the loss has a gradient.

    Each device of a mesh computes its own rows. Left to the partitioner, the devices would add up the table's gradient
    after every tile, in the loop.
    """
    if machine.devices() == 1:
        return _head(inputs, options)
    return kernel.on_rows(functools.partial(_head, options=options), inputs, ROWS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _head(inputs: Inputs, options: HeadOptions) -> PerSlot:
    return _forward(inputs, options)[0]


def _forward(inputs: Inputs, options: HeadOptions) -> tuple[PerSlot, Any]:
    hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise = inputs
    tiles = _Tiles(hidden_BxKxE, table_VxE, bias_V, options)

    def add(number: jax.Array, seen: Any) -> Any:
        softmax, drawn_from, likeliest, sampler, target_BxK = seen
        logits_BxKxT, first, _ = tiles.logits(number)
        ids_T = first + jnp.arange(options.tile, dtype=jnp.int32)
        draw_BxKxT = sampling_logits(logits_BxKxT, ids_T, targets_BxK, options)
        softmax = softmax.add(logits_BxKxT)
        drawn_from = softmax if options.plain else drawn_from.add(draw_BxKxT)
        at_BxK = targets_BxK - first
        here_BxK = (at_BxK >= number * options.tile - first) & (at_BxK < options.tile)
        picked_BxK = pick(logits_BxKxT, jnp.clip(at_BxK, 0, options.tile - 1))
        return (
            softmax,
            drawn_from,
            likeliest.add(logits_BxKxT, logits_BxKxT, first),
            sampler.add(draw_BxKxT, first, drawn_from.top, noise),
            jnp.where(here_BxK, picked_BxK, target_BxK),
        )

    like_BxK = targets_BxK
    sums, best = _Sums.start(like_BxK), Best.start(like_BxK)
    start = (sums, sums, best, SAMPLERS[options.sampler].start(like_BxK), best.score)
    softmax, drawn_from, likeliest, sampler, target_BxK = jax.lax.fori_loop(
        0, tiles.count, add, start
    )
    sampled_BxK, logit_BxK = sampler.sample(noise)
    log_norm_BxK = softmax.log_norm()
    out = PerSlot(
        loss=log_norm_BxK - target_BxK,
        entropy=softmax.entropy(),
        likeliest=likeliest.id,
        sampled=sampled_BxK,
        log_q=logit_BxK - drawn_from.log_norm(),
    )
    return out, (*inputs[:4], log_norm_BxK)


def _backward(options: HeadOptions, saved: Any, cotangents: PerSlot) -> tuple[Any]:
    hidden_BxKxE, table_VxE, bias_V, targets_BxK, log_norm_BxK = saved
    tiles = _Tiles(hidden_BxKxE, table_VxE, bias_V, options)
    cotangent_BxKx1 = cotangents.loss[..., None]

    def add(number: jax.Array, sums: Any) -> Any:
        d_hidden_BxKxE, d_table_VxE, d_bias_V = sums
        logits_BxKxT, first, table_TxE = tiles.logits(number)
        hit_BxKxT = targets_BxK[..., None] == first + jnp.arange(options.tile, dtype=jnp.int32)
        # Ids that an earlier tile had, and padding, are -inf here: their probability is 0.
        hit_BxKxT &= jnp.isfinite(logits_BxKxT)
        d_BxKxT = (jnp.exp(logits_BxKxT - log_norm_BxK[..., None]) - hit_BxKxT) * cotangent_BxKx1
        low_BxKxT = d_BxKxT.astype(hidden_BxKxE.dtype)
        d_hidden_BxKxE += jnp.einsum(
            "bkt,te->bke", low_BxKxT, table_TxE, preferred_element_type=jnp.float32
        )
        d_table_TxE = dense.over_rows(
            low_BxKxT.reshape(-1, options.tile),
            hidden_BxKxE.reshape(-1, hidden_BxKxE.shape[-1]),
            dtype=jnp.float32,
        )
        d_bias_T = jnp.sum(d_BxKxT, axis=(0, 1))
        return (
            d_hidden_BxKxE,
            _add_at(d_table_VxE, d_table_TxE, first),
            _add_at(d_bias_V, d_bias_T, first),
        )

    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (hidden_BxKxE, table_VxE, bias_V))
    return (gradients(jax.lax.fori_loop(0, tiles.count, add, zeros), saved[:3]),)


_head.defvjp(_forward, _backward)


class _Tiles:
    """Logits by tile. The last tile is moved back to end with the table; ids it shares with the one before are -inf."""

    def __init__(
        self, hidden_BxKxE: jax.Array, table_VxE: jax.Array, bias_V: jax.Array, options: HeadOptions
    ) -> None:
        self._hidden_BxKxE, self._bias_V, self._options = hidden_BxKxE, bias_V, options
        self._table_VxE = table_VxE.astype(hidden_BxKxE.dtype)
        self.count = -(-table_VxE.shape[0] // options.tile)

    def logits(self, number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(logits [B, K, T] float32, the tile's first id, its rows of the table)."""
        tile, vocab_size = self._options.tile, self._options.vocab_size
        begin = number * tile
        first = jnp.minimum(begin, self._table_VxE.shape[0] - tile)
        table_TxE = jax.lax.dynamic_slice_in_dim(self._table_VxE, first, tile)
        bias_T = jax.lax.dynamic_slice_in_dim(self._bias_V, first, tile)
        logits_BxKxT = jnp.einsum(
            "bke,te->bkt", self._hidden_BxKxE, table_TxE, preferred_element_type=jnp.float32
        )
        ids_T = first + jnp.arange(tile, dtype=jnp.int32)
        own_T = (ids_T >= begin) & (ids_T < vocab_size)
        return jnp.where(own_T, logits_BxKxT + bias_T, -jnp.inf), first, table_TxE


def _add_at(total: jax.Array, part: jax.Array, first: jax.Array) -> jax.Array:
    old = jax.lax.dynamic_slice_in_dim(total, first, part.shape[0])
    return jax.lax.dynamic_update_slice_in_dim(total, old + part, first, 0)
