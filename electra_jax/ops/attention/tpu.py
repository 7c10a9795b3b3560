"""Self-attention on a TPU as two Pallas kernels, forward and backward, whose weights never leave the core's memory.

Made for an encoder's rows of some hundred tokens: all keys of a row fit, so the softmax needs no second pass and the
backward pass one kernel, not one for queries and one for keys. Heads are read from [B, L, 3D] as one product with all
three projections writes it: no transposition, no tile that is half empty because a head has 64 channels. The kernels
add the projections' biases, and add up their gradients while they have the arrays at hand. Dropout is the addressed
noise of `noise.py`, number for number.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import tile, tpu_core
from electra_jax.ops.attention.inputs import Inputs

MOST_LENGTH = 1024  # of rows
_MASKED = np.float32(-1e9)
_QUERIES = 256  # whose weights are worked on at a time
_TOKENS = 1024  # of the rows of one program
_ARRAYS = 12  # of [queries, L] float32 at a time, at most


class _Shape(NamedTuple):
    """What the kernels are specialised for."""

    rows: int  # of one program
    length: int
    heads: int
    channels: int  # of a head
    together: int  # heads whose channels fill whole lanes
    dropout: float

    @property
    def width(self) -> int:
        """Of queries, keys or values."""
        return self.heads * self.channels


def supports(inputs: Inputs, heads: int, dropout: float) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del dropout  # any
    (batch, length, channels), dtype = inputs.shape(heads), inputs.qkv_BxLxM.dtype
    if reason := inputs.beyond_documents():
        return reason
    if length % tpu_core.LANES or length > MOST_LENGTH:
        return f"rows of {length} tokens (but multiples of {tpu_core.LANES} up to {MOST_LENGTH})"
    if channels % 64:
        return f"heads of {channels} channels (but multiples of 64)"
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"{dtype} (but bfloat16 and float32)"
    if small := tpu_core.too_small():
        return small
    rows = _rows_of_a_program(batch, length)
    # Seven arrays [L, D] come and go, the next while the last is worked on.
    moved = 2 * 7 * rows * length * heads * channels * jnp.dtype(dtype).itemsize
    needed = moved + _ARRAYS * min(length, _QUERIES) * length * 4
    room = tpu_core.room()
    if needed > room:
        return (
            f"rows of {length} tokens x {heads * channels}: {needed / 2**20:.0f} MiB in the core, "
            f"which has room for {room / 2**20:.0f}"
        )
    return ""


def run(inputs: Inputs, heads: int, dropout: float, interpret: bool = False) -> jax.Array:
    """`api.self_attention` for the rows of one device.

    Differs from the plain implementation by rounding only: gradients of the weights stay float32 here.
    """
    return _run(inputs.with_bias(), heads, dropout, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _run(inputs: Inputs, heads: int, dropout: float, interpret: bool) -> jax.Array:
    return _forward(inputs, heads, dropout, interpret)[0]


def _forward(
    inputs: Inputs, heads: int, dropout: float, interpret: bool
) -> tuple[jax.Array, Inputs]:
    (out_BxLxD,) = _call(
        _forward_kernel, inputs, None, heads=heads, dropout=dropout, interpret=interpret
    )
    return out_BxLxD, inputs


def _backward(
    heads: int, dropout: float, interpret: bool, inputs: Inputs, cotangent_BxLxD: jax.Array
) -> tuple[Any]:
    d_qkv_BxLxM, d_bias_Px1xM = _call(
        _backward_kernel, inputs, cotangent_BxLxD, heads=heads, dropout=dropout, interpret=interpret
    )
    d_bias_M = jnp.sum(d_bias_Px1xM, axis=(0, 1)).astype(inputs.bias().dtype)
    return (inputs.gradients(d_qkv_BxLxM, d_bias_M),)


_run.defvjp(_forward, _backward)


def _rows_of_a_program(batch: int, length: int) -> int:
    most = max(1, _TOKENS // length)
    return max(n for n in range(1, min(batch, most) + 1) if batch % n == 0)


def _call(
    kernel: Any,
    inputs: Inputs,
    cotangent_BxLxD: jax.Array | None,
    *,
    heads: int,
    dropout: float,
    interpret: bool,
) -> Any:
    """The kernel over blocks of rows; the backward one where there is a cotangent."""
    qkv_BxLxM, _, mask, noise, _ = inputs
    batch, length, channels = inputs.shape(heads)
    width, triple, docs_BxL = heads * channels, 3 * heads * channels, mask.docs_BxL
    rows = _rows_of_a_program(batch, length)
    fill = tpu_core.LANES // channels if channels < tpu_core.LANES else 1
    together = fill if heads % fill == 0 else heads
    shape = _Shape(
        rows=rows, length=length, heads=heads, channels=channels, together=together, dropout=dropout
    )

    def block(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((rows, length, width), lambda i: (i, 0, 0))

    keys = [jax.lax.bitcast_convert_type(x, jnp.int32) for x in noise or ()]
    results = [jax.ShapeDtypeStruct((batch, length, width), qkv_BxLxM.dtype)]
    specs = [block(width)]
    arrays = [qkv_BxLxM]
    if cotangent_BxLxD is not None:
        arrays.append(cotangent_BxLxD)
        programs = batch // rows
        results = [
            jax.ShapeDtypeStruct(qkv_BxLxM.shape, qkv_BxLxM.dtype),
            jax.ShapeDtypeStruct((programs, 1, triple), jnp.float32),
        ]
        specs = [block(triple), pl.BlockSpec((1, 1, triple), lambda i: (i, 0, 0))]
    moved: list[Any] = [*arrays, *results, docs_BxL]
    weights = batch * heads * length * length
    products = 2 if cotangent_BxLxD is None else 5
    return pl.pallas_call(
        functools.partial(kernel, shape),
        grid=(batch // rows,),
        in_specs=[
            *(pl.BlockSpec(memory_space=pltpu.SMEM) for _ in keys),
            pl.BlockSpec((rows, 1, length), lambda i: (i, 0, 0)),
            pl.BlockSpec((1, triple), lambda i: (0, 0)),
            *(block(x.shape[-1]) for x in arrays),
        ],
        out_specs=specs,
        out_shape=results,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",),
            vmem_limit_bytes=None if interpret else tpu_core.room(),
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * weights * channels,
            transcendentals=weights,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
        ),
        interpret=interpret,
    )(*keys, docs_BxL[:, None], inputs.bias().astype(qkv_BxLxM.dtype)[None], *arrays)


def _forward_kernel(shape: _Shape, *refs: Any) -> None:
    *keys, docs_ref, bias_ref, qkv_ref, out_ref = refs
    first_row = pl.program_id(0) * shape.rows

    def some_heads(r: jax.Array, docs: tuple[jax.Array, jax.Array], first: Any) -> None:
        q, k, v = _projections(shape, qkv_ref, bias_ref, r, first)
        for queries in _blocks(shape):
            outs = []
            for head, at in _heads(shape):
                weights_QxL = _weights(q[queries, at], k[:, at], docs, queries)
                mask_QxL = _dropout_mask(shape, keys, first_row + r, first + head, queries)
                used_QxL = _dropped(weights_QxL, mask_QxL, shape)
                outs.append(tile.dot(used_QxL.astype(v.dtype), v[:, at], 1, 0))
            out_ref[r, queries, _lanes(shape, first)] = _side_by_side(outs, out_ref.dtype)

    _over_rows_and_heads(shape, docs_ref, some_heads)


def _backward_kernel(shape: _Shape, *refs: Any) -> None:
    *keys, docs_ref, bias_ref, qkv_ref, cotangent_ref, d_qkv_ref, d_bias_ref = refs
    first_row = pl.program_id(0) * shape.rows
    scale = np.float32(shape.channels**-0.5)
    d_bias_ref[...] = jnp.zeros(d_bias_ref.shape, jnp.float32)

    def put(r: jax.Array, part: int, first: Any, queries: slice, heads: list[jax.Array]) -> None:
        lanes = _lanes(shape, first, part)
        d_qkv_ref[r, queries, lanes] = _side_by_side(heads, d_qkv_ref.dtype)
        sums = [jnp.sum(x, axis=0, keepdims=True) for x in heads]
        d_bias_ref[0, :, lanes] += _side_by_side(sums, jnp.float32)

    def some_heads(r: jax.Array, docs: tuple[jax.Array, jax.Array], first: Any) -> None:
        q, k, v = _projections(shape, qkv_ref, bias_ref, r, first)
        cotangent = cotangent_ref[r, :, _lanes(shape, first)]
        nothing = jnp.zeros((shape.length, shape.channels), jnp.float32)
        dk, dv = ([nothing] * shape.together for _ in range(2))
        for queries in _blocks(shape):
            dq = []
            for head, at in _heads(shape):
                weights_QxL = _weights(q[queries, at], k[:, at], docs, queries)
                mask_QxL = _dropout_mask(shape, keys, first_row + r, first + head, queries)
                used_QxL = _dropped(weights_QxL, mask_QxL, shape)
                d_QxL = _dropped(tile.dot(cotangent[queries, at], v[:, at], 1, 1), mask_QxL, shape)
                d_QxL = weights_QxL * (d_QxL - jnp.sum(weights_QxL * d_QxL, axis=1, keepdims=True))
                low_QxL = (d_QxL * scale).astype(q.dtype)
                dq.append(tile.dot(low_QxL, k[:, at], 1, 0))
                dk[head] += tile.dot(low_QxL, q[queries, at], 0, 0)
                dv[head] += tile.dot(used_QxL.astype(cotangent.dtype), cotangent[queries, at], 0, 0)
            put(r, 0, first, queries, dq)
        whole = slice(0, shape.length)
        put(r, 1, first, whole, dk)
        put(r, 2, first, whole, dv)

    _over_rows_and_heads(shape, docs_ref, some_heads)


def _over_rows_and_heads(shape: _Shape, docs_ref: Any, some_heads: Any) -> None:
    """Calls some_heads(row of the program, its documents [L, 1] and [1, L], first head) for all rows and heads."""

    def row(r: jax.Array, carry: None) -> None:
        docs_1xL = docs_ref[r]
        docs_Lx1 = tpu_core.column(docs_1xL)
        docs = docs_Lx1, docs_1xL
        if shape.together == shape.heads:
            some_heads(r, docs, 0)
        else:
            bundles = shape.heads // shape.together

            def bundle(i: jax.Array, carry: None) -> None:
                some_heads(r, docs, i * shape.together)
                return carry

            jax.lax.fori_loop(0, bundles, bundle, None)
        return carry

    jax.lax.fori_loop(0, shape.rows, row, None)


def _projections(
    shape: _Shape, qkv_ref: Any, bias_ref: Any, r: jax.Array, first: Any
) -> Iterator[jax.Array]:
    """Queries, keys and values [L, together x C] from this head on, with their biases."""
    for part in range(3):
        lanes = _lanes(shape, first, part)
        x, bias = (a.astype(jnp.float32) for a in (qkv_ref[r, :, lanes], bias_ref[:, lanes]))
        yield (x + bias).astype(qkv_ref.dtype)


def _lanes(shape: _Shape, first: Any, part: int = 0) -> Any:
    """Where the channels of the heads from `first` on lie in queries (part 0), keys or values."""
    size = shape.together * shape.channels
    start = part * shape.width + first * shape.channels
    if isinstance(first, int):
        return slice(start, start + size)
    return pl.ds(pl.multiple_of(start, size), size)


def _heads(shape: _Shape) -> list[tuple[int, slice]]:
    """(head, its channels) of a bundle."""
    c = shape.channels
    return [(head, slice(head * c, (head + 1) * c)) for head in range(shape.together)]


def _blocks(shape: _Shape) -> list[slice]:
    """The queries of a row, some at a time."""
    block = min(shape.length, _QUERIES)
    return [slice(i, min(i + block, shape.length)) for i in range(0, shape.length, block)]


def _side_by_side(heads: list[jax.Array], dtype: jnp.dtype) -> jax.Array:
    whole = heads[0] if len(heads) == 1 else jnp.concatenate(heads, axis=1)
    return whole.astype(dtype)


def _weights(
    q_QxC: jax.Array, k_LxC: jax.Array, docs: tuple[jax.Array, jax.Array], queries: slice
) -> jax.Array:
    docs_Lx1, docs_1xL = docs
    scores_QxL = tile.dot(q_QxC, k_LxC, 1, 1) * np.float32(q_QxC.shape[-1] ** -0.5)
    scores_QxL = jnp.where(docs_Lx1[queries] == docs_1xL, scores_QxL, _MASKED)
    raised_QxL = jnp.exp(scores_QxL - jnp.max(scores_QxL, axis=1, keepdims=True))
    return raised_QxL / jnp.sum(raised_QxL, axis=1, keepdims=True)


def _dropout_mask(
    shape: _Shape, keys: Any, row: jax.Array, head: Any, queries: slice
) -> jax.Array | None:
    """Which weights dropout keeps: `noise.dropout`'s choice for the elements [head, query, key] of the row."""
    if not keys:
        return None
    low, high = (ref[row].astype(jnp.uint32) for ref in keys)
    count = queries.stop - queries.start
    query_1xQ = jax.lax.broadcasted_iota(jnp.int32, (1, count), 1)
    query_1xQ += head * shape.length + queries.start
    line_1xQ = noise_ops.hashed(query_1xQ.astype(jnp.uint32), low, high)
    line_Qx1 = tpu_core.column(line_1xQ.astype(jnp.int32)).astype(jnp.uint32)
    key_1xL = jax.lax.broadcasted_iota(jnp.int32, (1, shape.length), 1)
    bits_QxL = noise_ops.along(line_Qx1, key_1xL.astype(jnp.uint32))
    return bits_QxL >= noise_ops.threshold(shape.dropout)


def _dropped(x: jax.Array, mask: jax.Array | None, shape: _Shape) -> jax.Array:
    if mask is None:
        return x
    return jnp.where(mask, x * np.float32(1 / (1 - shape.dropout)), np.float32(0))
