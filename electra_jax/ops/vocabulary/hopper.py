"""The vocabulary head on a GPU as two Pallas (Triton) kernels: logits and noise never leave the registers.

Forward, a program goes through one split of the vocabulary with its slots (chosen positions, of all rows) and writes
what `tiles.py` keeps of them; splits are what fills the GPU, and XLA merges them. Backward, the gradient of the
logits is written for a stretch of the vocabulary at a time, in the hidden states' dtype, and XLA makes both products
from it: kernels that made them would each compute the logits again, which costs more than two bytes a logit written
once and read twice, and where embeddings are wide a block of the table's gradient does not fit into registers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops import machine, tile
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.ops.vocabulary.samplers import NO_ID, slot_keys
from electra_jax.ops.vocabulary.slots import HeadOptions, PerSlot, sampling_logits

_SLOTS = 128  # of a program
_STRETCH_BYTES = 2**26  # of the logits' gradient that exist at once
_LOG2_E = np.float32(np.log2(np.e))
_NEVER = np.float32(-1e30)  # bias of the padding: its probability is 0, and 0 times it is no NaN


class _Work(NamedTuple):
    """How one kernel's programs work."""

    ids: int  # looked at together
    warps: int
    stages: int


class _Plan(NamedTuple):
    """How the kernels go through the vocabulary; chosen by the registers and shared memory of an H100."""

    forward: _Work
    programs: int  # that the GPU runs at once in the forward pass
    backward: _Work
    run: int  # times the ids looked at together: those of a program in the backward pass
    chunk: int  # of the embeddings' width in one product


# A program keeps the hidden states of its slots, or reads them for every tile: then larger tiles save reads.
_NARROW = _Plan(
    _Work(32, 8, 2), 3 * machine.HOPPER.multiprocessors, _Work(64, 8, 2), run=4, chunk=128
)
_WIDE = _Plan(_Work(64, 8, 3), machine.HOPPER.multiprocessors, _Work(128, 8, 3), run=1, chunk=64)


def _plan(width: int) -> _Plan:
    """For embeddings of this width; the sides of a kernel's arrays are powers of two."""
    return _NARROW._replace(chunk=width) if width in (64, 128) else _WIDE


def run(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    noise: Noise,
    *,
    options: HeadOptions,
    interpret: bool = False,
) -> PerSlot:
    """`tiles.run` on one device; `options.tile` is not used. Only the loss has a gradient."""
    return _head(hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise, options, interpret)


def supports(
    hidden_BxKxE: jax.ShapeDtypeStruct,
    table_VxE: jax.ShapeDtypeStruct,
    bias_V: jax.ShapeDtypeStruct,
    targets_BxK: jax.ShapeDtypeStruct,
    noise: Noise,
    *,
    options: HeadOptions,
) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del table_VxE, bias_V, targets_BxK, noise  # any
    width = hidden_BxKxE.shape[2]
    if options.sampler != "gumbel":
        return f"the sampler {options.sampler} (but gumbel)"
    if width % 64:
        return f"embeddings of width {width} (but multiples of 64)"
    if hidden_BxKxE.dtype != jnp.bfloat16:
        return f"{hidden_BxKxE.dtype} (but bfloat16)"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _head(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    noise: Noise,
    options: HeadOptions,
    interpret: bool,
) -> PerSlot:
    return _forward(hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise, options, interpret)[0]


def _forward(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    noise: Noise,
    options: HeadOptions,
    interpret: bool,
) -> tuple[PerSlot, Any]:
    batch, slots, width = hidden_BxKxE.shape
    hidden_SxE = _padded(hidden_BxKxE.reshape(-1, width))
    size = hidden_SxE.shape[0]
    table_low_VxE, bias_low_V = _vocabulary(table_VxE, bias_V, hidden_SxE, options)
    keys = slot_keys(noise, slots)
    of_slots = [_padded(x.reshape(-1)) for x in (targets_BxK, *keys)]

    plan = _plan(width)
    tiles = pl.cdiv(table_VxE.shape[0], plan.forward.ids)
    splits = _splits(size // _SLOTS, tiles, plan.programs)
    kept = [jnp.float32] * 4 + [jnp.int32] * 2 + [jnp.float32] * (0 if options.plain else 2)
    results = [jax.ShapeDtypeStruct((splits, size), dtype) for dtype in kept]
    top, total, moment, chance, likeliest, sampled, *drawn_from = pl.pallas_call(
        functools.partial(_forward_kernel, options, plan, tiles, pl.cdiv(tiles, splits)),
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
    )(*of_slots, hidden_SxE, table_low_VxE, bias_low_V)

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


def _backward(
    options: HeadOptions, interpret: bool, saved: Any, cotangents: PerSlot
) -> tuple[Any, ...]:
    hidden_SxE, table_VxE, bias_V, targets_BxK, log_norm_BxK = saved
    size, width = hidden_SxE.shape
    table_low_VxE, bias_low_V = _vocabulary(table_VxE, bias_V, hidden_SxE, options)
    # Slots of the padding have cotangent 0.
    of_slots = [_padded(x.reshape(-1)) for x in (targets_BxK, log_norm_BxK, cotangents.loss)]
    stretch = _stretch(hidden_SxE, table_VxE)
    plan = _plan(width)
    blocks, ids = size // _SLOTS, plan.backward.ids * plan.run
    d_logits = pl.pallas_call(
        functools.partial(_backward_kernel, plan, stretch),
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
    return (
        d_hidden_SxE[: batch * slots].reshape(batch, slots, width).astype(hidden_SxE.dtype),
        d_table_VxE[:rows].astype(table_VxE.dtype),
        d_bias_V[:rows].astype(bias_V.dtype),
        None,
        None,
    )


_head.defvjp(_forward, _backward)


def _params(work: _Work) -> plt.CompilerParams:
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
    bias_V = jnp.where(jnp.arange(rows) < options.vocab_size, bias_V.astype(jnp.float32), _NEVER)
    return (
        jnp.pad(table_VxE.astype(hidden_SxE.dtype), ((0, more), (0, 0))),
        jnp.pad(bias_V, (0, more), constant_values=_NEVER),
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


def _forward_kernel(options: HeadOptions, plan: _Plan, tiles: int, each: int, *refs: Any) -> None:
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

    lowest, zero = jnp.full(_SLOTS, _NEVER), jnp.zeros(_SLOTS, jnp.float32)
    none = jnp.zeros(_SLOTS, jnp.int32)
    start: tuple[jax.Array, ...] = (lowest, zero, zero, zero, none, none)
    if not options.plain:
        start += (lowest, zero)
    begin = pl.program_id(1) * each
    found = jax.lax.fori_loop(begin, jnp.minimum(begin + each, tiles), add, start)
    for ref, value_S in zip(results, found, strict=True):
        ref[...] = value_S


def _backward_kernel(plan: _Plan, stretch: int, *refs: Any) -> None:
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
