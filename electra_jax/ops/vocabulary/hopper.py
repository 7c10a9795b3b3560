"""The vocabulary head on a GPU as two Pallas (Triton) kernels: logits and noise never leave the registers.

Forward, a program goes through one split of the vocabulary with its slots (chosen positions, of all rows) and writes
what `tiles.py` keeps of them; splits are what fills the GPU, and XLA merges them. Backward, the gradient of the
logits is written for a stretch of the vocabulary at a time, in the hidden states' dtype, and XLA makes both products
from it: kernels that made them would each compute the logits again, which costs more than two bytes a logit written
once and read twice, and where embeddings are wide a block of the table's gradient does not fit into registers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops import machine, tile
from electra_jax.ops.vocabulary import hopper_kernels as kernels
from electra_jax.ops.vocabulary.hopper_kernels import NEVER, Plan, Work
from electra_jax.ops.vocabulary.samplers import slot_keys
from electra_jax.ops.vocabulary.slots import (
    HeadOptions,
    Inputs,
    PerSlot,
    gradients,
    sampling_logits,
)

_SLOTS = 128  # of a program
_STRETCH_BYTES = 2**26  # of the logits' gradient that exist at once


# A program keeps the hidden states of its slots, or reads them for every tile: then larger tiles save reads.
_NARROW = Plan(
    forward=Work(ids=32, warps=8, stages=2),
    programs=3 * machine.HOPPER.multiprocessors,
    backward=Work(ids=64, warps=8, stages=2),
    run=4,
    chunk=128,
)
_WIDE = Plan(
    forward=Work(ids=64, warps=8, stages=3),
    programs=machine.HOPPER.multiprocessors,
    backward=Work(ids=128, warps=8, stages=3),
    run=1,
    chunk=64,
)


def _plan(width: int) -> Plan:
    """For embeddings of this width; the sides of a kernel's arrays are powers of two."""
    return _NARROW._replace(chunk=width) if width in (64, 128) else _WIDE


def supports(inputs: Inputs, options: HeadOptions) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    (*_, width), dtype = inputs.hidden_BxKxE.shape, inputs.hidden_BxKxE.dtype
    if options.sampler != "gumbel":
        return f"the sampler {options.sampler} (but gumbel)"
    if width % 64:
        return f"embeddings of width {width} (but multiples of 64)"
    if dtype != jnp.bfloat16:
        return f"{dtype} (but bfloat16)"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def run(inputs: Inputs, options: HeadOptions, interpret: bool = False) -> PerSlot:
    """`tiles.run` on one device; `options.tile` is not used. Only the loss has a gradient."""
    return _forward(inputs, options, interpret)[0]


def _forward(inputs: Inputs, options: HeadOptions, interpret: bool) -> tuple[PerSlot, Any]:
    hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise = inputs
    batch, slots, width = hidden_BxKxE.shape
    hidden_SxE = _padded(hidden_BxKxE.reshape(-1, width))
    table_low_VxE, bias_low_V = _vocabulary(table_VxE, bias_V, hidden_SxE, options)
    keys = slot_keys(noise, slots)
    of_slots = [_padded(x.reshape(-1)) for x in (targets_BxK, *keys)]

    top, total, moment, chance, likeliest, sampled, *drawn_from = _of_splits(
        options, table_VxE.shape[0], (*of_slots, hidden_SxE, table_low_VxE, bias_low_V), interpret
    )

    def shaped(x_S: jax.Array) -> jax.Array:
        return x_S[: batch * slots].reshape(batch, slots)

    def of_best(ids_NxS: jax.Array, score_NxS: jax.Array) -> jax.Array:
        best_1xS = jnp.argmax(score_NxS, axis=0)[None]  # the first of equals has the lower ids
        return shaped(jnp.take_along_axis(ids_NxS, best_1xS, axis=0)[0])

    def logit(ids_BxK: jax.Array) -> jax.Array:
        # Not in the kernel, which would have to compare every id with the slot's.
        rows_BxKxE = jnp.take(table_low_VxE, ids_BxK, axis=0, mode="clip").astype(jnp.float32)
        bias_BxK = jnp.take(bias_low_V, ids_BxK, mode="clip")
        return jnp.sum(hidden_BxKxE.astype(jnp.float32) * rows_BxKxE, axis=-1) + bias_BxK

    log_norm_S, entropy_S = _merged(top, total, moment)
    draw_top, draw_norm_S = top, log_norm_S
    if not options.plain:
        draw_top, draw_total = drawn_from
        draw_norm_S, _ = _merged(draw_top, draw_total, moment)
    score = jnp.log(chance) + draw_top
    log_norm_BxK = shaped(log_norm_S)
    sampled_BxK = of_best(sampled, score)
    draw_BxKx1 = sampling_logits(
        logit(sampled_BxK)[..., None], sampled_BxK[..., None], targets_BxK, options
    )
    out = PerSlot(
        loss=log_norm_BxK - logit(targets_BxK),
        entropy=shaped(entropy_S),
        likeliest=of_best(likeliest, top),
        sampled=sampled_BxK,
        log_q=draw_BxKx1[..., 0] - shaped(draw_norm_S),
    )
    return out, (hidden_SxE, table_VxE, bias_V, targets_BxK, log_norm_BxK)


def _of_splits(
    options: HeadOptions, rows: int, arrays: tuple[jax.Array, ...], interpret: bool
) -> list[jax.Array]:
    """The forward kernel's results [N, S], of N splits of the vocabulary: see `kernels.forward`."""
    *of_slots, hidden_SxE, table_low_VxE, bias_low_V = arrays
    size, width = hidden_SxE.shape
    plan = _plan(width)
    tiles = pl.cdiv(rows, plan.forward.ids)
    splits = _splits(size // _SLOTS, tiles, plan.programs)
    dtypes = [jnp.float32] * 4 + [jnp.int32] * 2 + [jnp.float32] * (0 if options.plain else 2)
    results = [jax.ShapeDtypeStruct((splits, size), dtype) for dtype in dtypes]
    return pl.pallas_call(
        functools.partial(kernels.forward, options, plan, tiles, pl.cdiv(tiles, splits)),
        grid=(size // _SLOTS, splits),
        in_specs=[
            *[pl.BlockSpec((_SLOTS,), lambda s, i: (s,))] * len(of_slots),
            pl.BlockSpec((_SLOTS, width), lambda s, i: (s, 0)),
            *_whole(table_low_VxE, bias_low_V),
        ],
        out_specs=[pl.BlockSpec((None, _SLOTS), lambda s, i: (i, s))] * len(results),
        out_shape=results,
        compiler_params=_params(plan.forward),
        interpret=interpret,
        name="vocab_forward",
    )(*arrays)


def _backward(options: HeadOptions, interpret: bool, saved: Any, cotangents: PerSlot) -> tuple[Any]:
    hidden_SxE, table_VxE, bias_V, targets_BxK, log_norm_BxK = saved
    size, width = hidden_SxE.shape
    table_low_VxE, bias_low_V = _vocabulary(table_VxE, bias_V, hidden_SxE, options)
    # Slots of the padding have cotangent 0.
    of_slots = [_padded(x.reshape(-1)) for x in (targets_BxK, log_norm_BxK, cotangents.loss)]
    stretch = _stretch(hidden_SxE, table_VxE)
    plan = _plan(width)
    blocks, ids = size // _SLOTS, plan.backward.ids * plan.run
    d_logits = pl.pallas_call(
        functools.partial(kernels.backward, plan, stretch),
        grid=(blocks, stretch // ids),
        in_specs=[
            pl.BlockSpec((1,), lambda s, i: (0,)),
            *[pl.BlockSpec((_SLOTS,), lambda s, i: (s,))] * len(of_slots),
            pl.BlockSpec((_SLOTS, width), lambda s, i: (s, 0)),
            *_whole(table_low_VxE, bias_low_V),
        ],
        out_specs=[
            pl.BlockSpec((_SLOTS, ids), lambda s, i: (s, i)),
            pl.BlockSpec((None, ids), lambda s, i: (s, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((size, stretch), hidden_SxE.dtype),
            jax.ShapeDtypeStruct((blocks, stretch), jnp.float32),
        ],
        compiler_params=_params(plan.backward),
        interpret=interpret,
        name="vocab_backward",
    )

    def add(number: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        d_hidden_SxE, d_table_VxE, d_bias_V = sums
        low_SxT, d_bias_NxT = d_logits(
            number[None], *of_slots, hidden_SxE, table_low_VxE, bias_low_V
        )
        first = number * stretch
        table_TxE = jax.lax.dynamic_slice_in_dim(table_low_VxE, first, stretch)
        d_table_TxE = tile.dot(low_SxT, hidden_SxE, 0, 0)
        update = jax.lax.dynamic_update_slice_in_dim
        return (
            d_hidden_SxE + tile.dot(low_SxT, table_TxE, 1, 0),
            update(d_table_VxE, d_table_TxE, first, 0),
            update(d_bias_V, jnp.sum(d_bias_NxT, axis=0), first, 0),
        )

    zeros = [jnp.zeros(x.shape, jnp.float32) for x in (hidden_SxE, table_low_VxE, bias_low_V)]
    count = table_low_VxE.shape[0] // stretch
    d_hidden_SxE, d_table_VxE, d_bias_V = jax.lax.fori_loop(0, count, add, tuple(zeros))
    batch, slots = targets_BxK.shape
    rows = table_VxE.shape[0]
    d_hidden_BxKxE = d_hidden_SxE[: batch * slots].reshape(batch, slots, width)
    return (gradients((d_hidden_BxKxE, d_table_VxE[:rows], d_bias_V[:rows]), saved[:3]),)


run.defvjp(_forward, _backward)


def _params(work: Work) -> plt.CompilerParams:
    return plt.CompilerParams(num_warps=work.warps, num_stages=work.stages)


def _padded(x: jax.Array) -> jax.Array:
    """With zeros after its first axis, to a multiple of a program's slots."""
    return jnp.pad(x, [(0, -x.shape[0] % _SLOTS)] + [(0, 0)] * (x.ndim - 1))


def _vocabulary(
    table_VxE: jax.Array, bias_V: jax.Array, hidden_SxE: jax.Array, options: HeadOptions
) -> tuple[jax.Array, jax.Array]:
    """The table in the hidden states' dtype and the bias, lengthened to whole stretches, without a chance."""
    rows = table_VxE.shape[0]
    more = -rows % _stretch(hidden_SxE, table_VxE)
    bias_V = jnp.where(jnp.arange(rows) < options.vocab_size, bias_V.astype(jnp.float32), NEVER)
    return (
        jnp.pad(table_VxE.astype(hidden_SxE.dtype), ((0, more), (0, 0))),
        jnp.pad(bias_V, (0, more), constant_values=NEVER),
    )


def _stretch(hidden_SxE: jax.Array, table_VxE: jax.Array) -> int:
    """How many ids' logits have their gradient in memory at once."""
    rows, plan = table_VxE.shape[0], _plan(hidden_SxE.shape[1])
    unit = plan.backward.ids * plan.run
    room = _STRETCH_BYTES // (hidden_SxE.shape[0] * hidden_SxE.dtype.itemsize)
    count = pl.cdiv(rows, max(room // unit, 1) * unit)
    return pl.cdiv(pl.cdiv(rows, count), unit) * unit


def _splits(blocks: int, tiles: int, programs: int) -> int:
    """Into how many parts `tiles` of the vocabulary are split for every block of slots."""

    def time(splits: int) -> int:
        # A program's start and end take about as long as a tile.
        return pl.cdiv(blocks * splits, programs) * (pl.cdiv(tiles, splits) + 1)

    return min(range(1, tiles + 1), key=time)


def _whole(*arrays: jax.Array) -> list[pl.BlockSpec]:
    """All of every array, for every program."""
    return [pl.BlockSpec(x.shape, lambda s, i, n=x.ndim: (0,) * n) for x in arrays]


def _merged(
    top_NxS: jax.Array, total_NxS: jax.Array, moment_NxS: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(log of the softmax's denominator, entropy) of every slot, from its sums over each split."""
    top_S = jnp.max(top_NxS, axis=0)
    fall_NxS = top_NxS - top_S
    shrink_NxS = jnp.exp(fall_NxS)
    total_S = jnp.sum(total_NxS * shrink_NxS, axis=0)
    moment_S = jnp.sum((moment_NxS + total_NxS * fall_NxS) * shrink_NxS, axis=0)
    return top_S + jnp.log(total_S), jnp.log(total_S) - moment_S / total_S
