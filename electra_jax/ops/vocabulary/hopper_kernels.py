"""What a program of the GPU's vocabulary kernels does: the slots of one block, and a part of the vocabulary."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import tile
from electra_jax.ops.vocabulary.samplers import NO_ID
from electra_jax.ops.vocabulary.slots import HeadOptions, sampling_logits

NEVER = np.float32(-1e30)  # bias of the padding: its probability is 0, and 0 times it is no NaN
_LOG2_E = np.float32(np.log2(math.e))


class Work(NamedTuple):
    """How one kernel's programs work."""

    ids: int  # looked at together
    warps: int
    stages: int


class Plan(NamedTuple):
    """How the kernels go through the vocabulary; chosen by the registers and shared memory of an H100."""

    forward: Work
    programs: int  # that the GPU runs at once in the forward pass
    backward: Work
    run: int  # times the ids looked at together: those of a program in the backward pass
    chunk: int  # of the embeddings' width in one product


def forward(options: HeadOptions, plan: Plan, tiles: int, each: int, *refs: Any) -> None:
    """Of each slot in one split: maximum, sum and moment of its softmax, the largest chance to be drawn, the likeliest
    and the sampled id; where samples come from another distribution, the maximum and sum of that.
    """
    target_ref, counter_ref, low_ref, high_ref, hidden_ref, table_ref, bias_ref, *results = refs
    target_S = target_ref[...]
    counter_Sx1, low_Sx1, high_Sx1 = (ref[...][:, None] for ref in (counter_ref, low_ref, high_ref))
    logits_of = _product(hidden_ref, table_ref, bias_ref, plan.forward.ids, plan.chunk)

    def add(number: jax.Array, seen: Any) -> Any:
        top, total, moment, chance, likeliest, sampled, *drawn_from = seen
        first = number * plan.forward.ids
        logits_SxT = logits_of(first)
        ids_SxT = first + jax.lax.broadcasted_iota(jnp.int32, logits_SxT.shape, 1)
        tile_top = jnp.max(logits_SxT, axis=1)
        likeliest = jnp.where(tile_top > top, _first(logits_SxT, tile_top, ids_SxT), likeliest)
        softmax, shrink, weight_SxT = _softmax(logits_SxT, tile_top, top, total, moment)
        if not options.plain:
            draw_SxT = sampling_logits(logits_SxT, ids_SxT, target_S, options)
            draw_top = jnp.max(draw_SxT, axis=1)
            drawn_from, shrink, weight_SxT = _softmax(draw_SxT, draw_top, *drawn_from)
        bits_SxT = noise_ops.hashed(counter_Sx1 + ids_SxT.astype(jnp.uint32), low_Sx1, high_Sx1)
        # The largest logit + noise is the largest exp(logit) / -log(u), which takes one logarithm less.
        chance_SxT = weight_SxT / noise_ops.exponential_of(bits_SxT)
        tile_chance, chance = jnp.max(chance_SxT, axis=1), chance * shrink
        sampled = jnp.where(tile_chance > chance, _first(chance_SxT, tile_chance, ids_SxT), sampled)
        return (*softmax, jnp.maximum(chance, tile_chance), likeliest, sampled, *drawn_from)

    lowest, zero = jnp.full(target_S.shape, NEVER), jnp.zeros(target_S.shape, jnp.float32)
    none = jnp.zeros(target_S.shape, jnp.int32)
    start: tuple[jax.Array, ...] = (lowest, zero, zero, zero, none, none)
    if not options.plain:
        start += (lowest, zero)
    begin = pl.program_id(1) * each
    sums = jax.lax.fori_loop(begin, jnp.minimum(begin + each, tiles), add, start)
    for ref, value_S in zip(results, sums, strict=True):
        ref[...] = value_S


def backward(plan: Plan, stretch: int, *refs: Any) -> None:
    """The gradient of the logits of a run of ids, and what these slots add to that of the bias."""
    number_ref, target_ref, norm_ref, cotangent_ref, hidden_ref, table_ref, bias_ref = refs[:7]
    low_ref, d_bias_ref = refs[7:]
    target_Sx1, norm_Sx1, cotangent_Sx1 = (
        ref[...][:, None] for ref in (target_ref, norm_ref, cotangent_ref)
    )
    ids = plan.backward.ids
    logits_of = _product(hidden_ref, table_ref, bias_ref, ids, plan.chunk)
    begin = number_ref[0] * stretch + pl.program_id(1) * (ids * plan.run)

    def write(number: jax.Array, _: None) -> None:
        here = number * ids
        logits_SxT = logits_of(begin + here)
        ids_SxT = begin + here + jax.lax.broadcasted_iota(jnp.int32, logits_SxT.shape, 1)
        hit_SxT = jnp.where(ids_SxT == target_Sx1, np.float32(1), np.float32(0))
        d_SxT = (jnp.exp2((logits_SxT - norm_Sx1) * _LOG2_E) - hit_SxT) * cotangent_Sx1
        low_ref[:, pl.ds(here, ids)] = d_SxT.astype(low_ref.dtype)
        d_bias_ref[pl.ds(here, ids)] = jnp.sum(d_SxT, axis=0)

    jax.lax.fori_loop(0, plan.run, write, None)


def _product(
    hidden_ref: Any, table_ref: Any, bias_ref: Any, ids: int, chunk: int
) -> Callable[[jax.Array], jax.Array]:
    """A function of an id, whose result is the logits [S, T] of so many ids from it on."""
    width = hidden_ref.shape[1]
    resident_SxE = hidden_ref[...] if chunk == width else None

    def logits(first: jax.Array) -> jax.Array:
        rows = pl.ds(first, ids)

        def add(number: jax.Array, sum_SxT: jax.Array) -> jax.Array:
            part = pl.ds(number * chunk, chunk)
            return sum_SxT + tile.dot(hidden_ref[:, part], table_ref[rows, part], 1, 1)

        if resident_SxE is not None:
            product_SxT = tile.dot(resident_SxE, table_ref[rows, :], 1, 1)
        else:
            zeros_SxT = jnp.zeros((hidden_ref.shape[0], ids), jnp.float32)
            product_SxT = jax.lax.fori_loop(0, width // chunk, add, zeros_SxT)
        return product_SxT + bias_ref[rows][None]

    return logits


def _softmax(
    logits_SxT: jax.Array, tile_top: jax.Array, top: jax.Array, *sums: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """A softmax's running maximum and sums [S] with a tile more, what the old sums shrank by, exp(logits - maximum).

    The sums are of exp(logit - maximum) and, where `sums` has a second, of that times (logit - maximum).
    """
    new_top = jnp.maximum(top, tile_top)
    fall = top - new_top
    shrink = jnp.exp2(fall * _LOG2_E)
    below_SxT = logits_SxT - new_top[:, None]
    weight_SxT = jnp.exp2(below_SxT * _LOG2_E)
    total, *moment = sums
    new = [new_top, total * shrink + jnp.sum(weight_SxT, axis=1)]
    if moment:
        old = (moment[0] + total * fall) * shrink
        new.append(old + jnp.sum(weight_SxT * below_SxT, axis=1))
    return tuple(new), shrink, weight_SxT


def _first(x_SxT: jax.Array, best: jax.Array, ids_SxT: jax.Array) -> jax.Array:
    """The least id whose number is the best, [S]."""
    return jnp.min(jnp.where(x_SxT == best[:, None], ids_SxT, NO_ID), axis=1)
