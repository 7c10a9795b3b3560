"""The vocabulary head on a TPU as two Pallas kernels: logits, noise and running sums never leave the core's memory.

What `tiles.py` computes, with ids along sublanes and slots (a row's chosen positions) along lanes: a
reduction over ids is then a sum of registers, and what is kept of a slot is one lane. The grid goes through the
vocabulary; hidden states, and in the backward pass their gradient, stay in the core for all slots, so the table is
read once and its gradient written once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import tile, tpu_core
from electra_jax.ops.vocabulary.samplers import NO_ID, slot_keys
from electra_jax.ops.vocabulary.slots import DISALLOWED, HeadOptions, Inputs, PerSlot, gradients

_TILE = 512  # ids of a program
_SLOTS = 512  # that are worked on at a time
_RESIDENT = 0.35  # of the core's memory at most, for what stays there through the vocabulary
_LOWEST = np.finfo(np.float32).min
_STATE = 8  # rows of what is kept of a slot
_TOP, _TOTAL, _MOMENT, _TARGET, _SCORE, _LOGIT, _DRAW_TOP, _DRAW_TOTAL = range(_STATE)


def supports(inputs: Inputs, options: HeadOptions) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    (batch, slots, width), dtype = inputs.hidden_BxKxE.shape, inputs.hidden_BxKxE.dtype
    if options.sampler != "gumbel":
        return f"the sampler {options.sampler} (but gumbel)"
    if width % tpu_core.LANES:
        return f"embeddings of width {width} (but multiples of {tpu_core.LANES})"
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"{dtype} (but bfloat16 and float32)"
    if small := tpu_core.too_small():
        return small
    resident = batch * slots * width * (dtype.itemsize + 4)
    room = _RESIDENT * pltpu.get_tpu_info().vmem_capacity_bytes
    if resident > room:
        return (
            f"{batch} rows of {slots} slots on a device: {resident / 2**20:.0f} MiB in the core, "
            f"which has room for {room / 2**20:.0f}"
        )
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def run(inputs: Inputs, options: HeadOptions, interpret: bool = False) -> PerSlot:
    """`tiles.run` on one device; `options.tile` is not used. Only the loss has a gradient."""
    return _forward(inputs, options, interpret)[0]


def _forward(inputs: Inputs, options: HeadOptions, interpret: bool) -> tuple[PerSlot, Any]:
    hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise = inputs
    batch, slots, width = hidden_BxKxE.shape
    hidden_SxE = _padded(hidden_BxKxE.reshape(-1, width))
    table_low_VxE = table_VxE.astype(hidden_SxE.dtype)
    size = hidden_SxE.shape[0]
    keys = slot_keys(noise, slots)
    lanes = [targets_BxK, *(jax.lax.bitcast_convert_type(x, jnp.int32) for x in keys)]
    lanes_4xS = jnp.stack([_padded(x.reshape(-1)) for x in lanes])
    state = jax.ShapeDtypeStruct((_STATE, size), jnp.float32)
    picked = jax.ShapeDtypeStruct((2, size), jnp.int32)
    state_8xS, picked_2xS = pl.pallas_call(
        functools.partial(_forward_kernel, options),
        grid=(pl.cdiv(table_VxE.shape[0], _TILE),),
        in_specs=[_all(lanes_4xS), _all(hidden_SxE), *_of_table(width)],
        out_specs=[_all(state), _all(picked)],
        out_shape=[state, picked],
        compiler_params=_params(interpret),
        cost_estimate=_cost(
            1, size, table_low_VxE, (lanes_4xS, hidden_SxE, table_low_VxE, bias_V, state, picked)
        ),
        interpret=interpret,
    )(lanes_4xS, hidden_SxE, table_low_VxE, bias_V[None])

    def shaped(x_S: jax.Array) -> jax.Array:
        return x_S[: batch * slots].reshape(batch, slots)

    top, total, moment, target, _, logit, draw_top, draw_total = map(shaped, state_8xS)
    log_norm_BxK = top + jnp.log(total)
    out = PerSlot(
        loss=log_norm_BxK - target,
        entropy=jnp.log(total) - moment / total,
        likeliest=shaped(picked_2xS[0]),
        sampled=shaped(picked_2xS[1]),
        log_q=logit - (log_norm_BxK if options.plain else draw_top + jnp.log(draw_total)),
    )
    return out, (hidden_SxE, table_VxE, bias_V, targets_BxK, log_norm_BxK)


def _backward(options: HeadOptions, interpret: bool, saved: Any, cotangents: PerSlot) -> tuple[Any]:
    hidden_SxE, table_VxE, bias_V, targets_BxK, log_norm_BxK = saved
    size, width = hidden_SxE.shape
    rows = table_VxE.shape[0]
    # Slots of the padding have cotangent 0.
    saved_2xS = jnp.stack([_padded(x.reshape(-1)) for x in (log_norm_BxK, cotangents.loss)])
    targets_1xS = _padded(targets_BxK.reshape(-1))[None]
    table_low_VxE = table_VxE.astype(hidden_SxE.dtype)
    d_hidden = jax.ShapeDtypeStruct((size, width), jnp.float32)
    d_table = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    d_bias = jax.ShapeDtypeStruct((1, rows), jnp.float32)
    operands = (targets_1xS, saved_2xS, hidden_SxE, table_low_VxE, bias_V[None])
    d_hidden_SxE, d_table_VxE, d_bias_1xV = pl.pallas_call(
        functools.partial(_backward_kernel, options, rows),
        grid=(pl.cdiv(rows, _TILE),),
        in_specs=[_all(targets_1xS), _all(saved_2xS), _all(hidden_SxE), *_of_table(width)],
        out_specs=[_all(d_hidden), *_of_table(width)],
        out_shape=[d_hidden, d_table, d_bias],
        compiler_params=_params(interpret),
        cost_estimate=_cost(3, size, table_low_VxE, (*operands, d_hidden, d_table, d_bias)),
        interpret=interpret,
    )(*operands)
    batch, slots = targets_BxK.shape
    d_hidden_BxKxE = d_hidden_SxE[: batch * slots].reshape(batch, slots, width)
    return (gradients((d_hidden_BxKxE, d_table_VxE, d_bias_1xV[0]), saved[:3]),)


run.defvjp(_forward, _backward)


def _params(interpret: bool) -> pltpu.CompilerParams:
    room = None if interpret else tpu_core.room()
    return pltpu.CompilerParams(dimension_semantics=("arbitrary",), vmem_limit_bytes=room)


def _padded(x: jax.Array) -> jax.Array:
    """With zeros after its first axis, to a multiple of the lanes."""
    return jnp.pad(x, [(0, -x.shape[0] % tpu_core.LANES)] + [(0, 0)] * (x.ndim - 1))


def _all(array: Any) -> pl.BlockSpec:
    """The whole of a two-dimensional array, in the core through all programs."""
    return pl.BlockSpec(array.shape, lambda i: (0, 0))


def _of_table(width: int) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """The program's rows of the table, and its part of a row of the bias."""
    return pl.BlockSpec((_TILE, width), lambda i: (i, 0)), pl.BlockSpec(
        (1, _TILE), lambda i: (0, i)
    )


def _cost(
    products: int, slots: int, table_VxE: jax.Array, moved: tuple[Any, ...]
) -> pl.CostEstimate:
    """`products` of the size of all logits; `moved` once between the memories."""
    rows, width = table_VxE.shape
    return pl.CostEstimate(
        flops=2 * products * rows * width * slots,
        transcendentals=(3 if products == 1 else 1) * rows * slots,
        bytes_accessed=sum(x.size * jnp.dtype(x.dtype).itemsize for x in moved),
    )


def _forward_kernel(options: HeadOptions, *refs: Any) -> None:
    lanes_ref, hidden_ref, table_ref, bias_ref, state_ref, picked_ref = refs
    first = pl.program_id(0) * _TILE

    @pl.when(first == 0)
    def start() -> None:
        state_ref[...] = jnp.zeros(state_ref.shape, jnp.float32)
        for row in (_TOP, _DRAW_TOP):
            state_ref[row : row + 1] = jnp.full_like(state_ref[:1], _LOWEST)
        state_ref[_SCORE : _SCORE + 1] = jnp.full_like(state_ref[:1], -jnp.inf)
        picked_ref[...] = jnp.zeros(picked_ref.shape, jnp.int32)

    bias_Tx1 = tpu_core.column(bias_ref[...])
    for slots in _parts(hidden_ref.shape[0]):
        target, counter, low, high = (lanes_ref[i : i + 1, slots] for i in range(4))
        ids_TxS, logits_TxS = _logits(options, first, hidden_ref[slots], table_ref, bias_Tx1)
        old = [state_ref[i : i + 1, slots] for i in range(_STATE)]
        top, total, moment, tile_top = _softmax(logits_TxS, *old[: _MOMENT + 1])
        likeliest = _first(logits_TxS == tile_top, ids_TxS)
        picked_ref[:1, slots] = jnp.where(tile_top > old[_TOP], likeliest, picked_ref[:1, slots])
        draw_TxS = logits_TxS
        if options.temperature != 1.0:
            draw_TxS = draw_TxS / np.float32(options.temperature)
        if options.disallow_correct:
            draw_TxS = draw_TxS - jnp.where(ids_TxS == target, np.float32(DISALLOWED), 0.0)
        counters_TxS = (ids_TxS + counter).astype(jnp.uint32)
        bits_TxS = noise_ops.hashed(counters_TxS, low.astype(jnp.uint32), high.astype(jnp.uint32))
        score_TxS = draw_TxS + noise_ops.gumbel_of(bits_TxS)
        score = jnp.max(score_TxS, axis=0, keepdims=True)
        sampled = _first(score_TxS == score, ids_TxS)
        better = score > old[_SCORE]
        picked_ref[1:2, slots] = jnp.where(better, sampled, picked_ref[1:2, slots])
        new = {
            _TOP: top,
            _TOTAL: total,
            _MOMENT: moment,
            _TARGET: old[_TARGET] + _entry(logits_TxS, ids_TxS == target),
            _SCORE: jnp.maximum(score, old[_SCORE]),
            _LOGIT: jnp.where(better, _entry(draw_TxS, ids_TxS == sampled), old[_LOGIT]),
        }
        if not options.plain:
            drawn = _softmax(draw_TxS, old[_DRAW_TOP], old[_DRAW_TOTAL], old[_MOMENT])
            new |= {_DRAW_TOP: drawn[0], _DRAW_TOTAL: drawn[1]}
        for row, value in new.items():
            state_ref[row : row + 1, slots] = value


def _backward_kernel(options: HeadOptions, rows: int, *refs: Any) -> None:
    target_ref, saved_ref, hidden_ref, table_ref, bias_ref = refs[:5]
    d_hidden_ref, d_table_ref, d_bias_ref = refs[5:]
    first = pl.program_id(0) * _TILE

    @pl.when(first == 0)
    def start() -> None:
        d_hidden_ref[...] = jnp.zeros(d_hidden_ref.shape, jnp.float32)

    table_TxE = table_ref[...]
    if rows % _TILE:
        # Rows after the table's end hold anything, and 0 x NaN is NaN.
        row_Tx1 = first + jax.lax.broadcasted_iota(jnp.int32, (_TILE, 1), 0)
        table_TxE = jnp.where(row_Tx1 < rows, table_TxE, jnp.zeros_like(table_TxE))
    bias_Tx1 = tpu_core.column(bias_ref[...])
    d_table_TxE, d_bias_Tx1 = jnp.zeros(table_TxE.shape, jnp.float32), jnp.zeros_like(bias_Tx1)
    for slots in _parts(hidden_ref.shape[0]):
        hidden_SxE = hidden_ref[slots]
        ids_TxS, logits_TxS = _logits(options, first, hidden_SxE, table_TxE, bias_Tx1)
        chance_TxS = jnp.exp(logits_TxS - saved_ref[:1, slots])
        hit_TxS = jnp.where(ids_TxS == target_ref[:, slots], np.float32(1), np.float32(0))
        d_TxS = (chance_TxS - hit_TxS) * saved_ref[1:2, slots]
        low_TxS = d_TxS.astype(hidden_SxE.dtype)
        d_hidden_ref[slots] += tile.dot(low_TxS, table_TxE, 0, 0)
        d_table_TxE += tile.dot(low_TxS, hidden_SxE, 1, 0)
        d_bias_Tx1 += jnp.sum(d_TxS, axis=1, keepdims=True)
    d_table_ref[...] = d_table_TxE
    d_bias_ref[...] = jnp.broadcast_to(d_bias_Tx1, (_TILE, tpu_core.LANES)).T[:1]


def _parts(slots: int) -> list[slice]:
    return [slice(i, min(i + _SLOTS, slots)) for i in range(0, slots, _SLOTS)]


def _logits(
    options: HeadOptions, first: jax.Array, hidden_SxE: jax.Array, table: Any, bias_Tx1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(ids, logits) [T, S]; ids that are padding have -inf."""
    logits_TxS = tile.dot(table[...], hidden_SxE, 1, 1) + bias_Tx1
    ids_TxS = first + jax.lax.broadcasted_iota(jnp.int32, logits_TxS.shape, 0)
    return ids_TxS, jnp.where(ids_TxS < options.vocab_size, logits_TxS, -jnp.inf)


def _softmax(
    logits_TxS: jax.Array, top: jax.Array, total: jax.Array, moment: jax.Array
) -> tuple[jax.Array, ...]:
    """The running maximum, sum of exp(logit - top) and of that times (logit - top), and the tile's maximum; [1, S]."""
    tile_top = jnp.max(logits_TxS, axis=0, keepdims=True)
    new_top = jnp.maximum(top, tile_top)
    fall = jnp.maximum(top - new_top, np.float32(-1e9))
    below_TxS = jnp.maximum(logits_TxS - new_top, np.float32(-1e9))
    weight_TxS = jnp.exp(below_TxS)
    return (
        new_top,
        total * jnp.exp(fall) + jnp.sum(weight_TxS, axis=0, keepdims=True),
        (moment + total * fall) * jnp.exp(fall)
        + jnp.sum(weight_TxS * below_TxS, axis=0, keepdims=True),
        tile_top,
    )


def _first(is_best_TxS: jax.Array, ids_TxS: jax.Array) -> jax.Array:
    """The least id that is best, [1, S]."""
    return jnp.min(jnp.where(is_best_TxS, ids_TxS, NO_ID), axis=0, keepdims=True)


def _entry(x_TxS: jax.Array, at_TxS: jax.Array) -> jax.Array:
    """The one entry that is meant, or 0 where there is none; [1, S]."""
    return jnp.sum(jnp.where(at_TxS, x_TxS, np.float32(0)), axis=0, keepdims=True)
