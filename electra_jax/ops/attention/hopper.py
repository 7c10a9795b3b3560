"""Self-attention on a GPU as Pallas (Triton) kernels: weights never reach main memory, dropout is the addressed noise.

The online softmax of FlashAttention (Dao, arXiv:2307.08691), read from [B, L, 3D] as one product with all three
projections writes it, so that nothing is transposed; the kernels add the projections' biases, and add up their
gradients while they have the arrays at hand. The backward pass goes over the weights twice, by queries for their
gradients and by keys for those of keys and values: it computes them again, but needs no sum that programs share.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import ptx, tile
from electra_jax.ops.attention.mask import Mask
from electra_jax.ops.attention.rotation import Rotation
from electra_jax.ops.noise import Noise

_TILE = 64  # queries or keys of a program, and of those on the other side that it looks at together
_FEW = 32  # keys that programs of `_queries_kernel` look at together in short rows, and more of them run at once
_SHORT = 128
_WARPS, _STAGES = 4, 2
_APART = np.float32(2**15)  # of documents; scores between two lose its square, 1e9, or more


class _Shape(NamedTuple):
    """What the kernels are specialised for."""

    length: int
    heads: int
    channels: int  # of a head
    dropout: float
    interpret: bool

    @property
    def tile(self) -> int:
        """Queries, or keys, of a program, and what it looks at together of the other side."""
        return min(_TILE, self.length)

    @property
    def keys(self) -> int:
        """Those that `_queries_kernel` looks at together."""
        return min(_FEW if self.length <= _SHORT else _TILE, self.length)

    @property
    def scale(self) -> np.float32:
        """Of the products of queries and keys, whose exponentials are of 2."""
        return np.float32(self.channels**-0.5 * np.log2(np.e))

    @property
    def grown(self) -> np.float32:
        """What dropout multiplies the weights that stay by."""
        return np.float32(1 / (1 - self.dropout))


def run(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    mask: Mask,
    noise: Noise | None,
    rotation: None,
    *,
    heads: int,
    dropout: float,
    interpret: bool = False,
) -> jax.Array:
    """`api.self_attention` for the rows of one device; M = 3 x heads x channels.

    Differs from the plain implementation by rounding only.
    """
    del rotation  # unsupported
    return _attend(qkv_BxLxM, bias_M, mask.docs_BxL, noise, heads, dropout, interpret)


def supports(
    qkv_BxLxM: jax.ShapeDtypeStruct,
    bias_M: jax.ShapeDtypeStruct,
    mask: Mask,
    noise: Noise | None,
    rotation: Rotation | None,
    *,
    heads: int,
    dropout: float,
) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del bias_M, noise, dropout  # any
    _, length, triple = qkv_BxLxM.shape
    channels, dtype = triple // 3 // heads, qkv_BxLxM.dtype
    if rotation is not None:
        return "rotary positions"
    if mask.unsupported_by_documents:
        return mask.unsupported_by_documents
    if length not in (16, 32) and length % _TILE:
        return f"rows of {length} tokens (but 16, 32 and multiples of {_TILE})"
    if channels not in (16, 32, 64, 128):
        return f"heads of {channels} channels (but 16, 32, 64 and 128)"
    if dtype != jnp.bfloat16:
        return f"{jnp.dtype(dtype)} (but bfloat16)"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: Noise | None,
    heads: int,
    dropout: float,
    interpret: bool,
) -> jax.Array:
    return _forward(qkv_BxLxM, bias_M, docs_BxL, noise, heads, dropout, interpret)[0]


def _forward(
    qkv_BxLxM: jax.Array,
    bias_M: jax.Array,
    docs_BxL: jax.Array,
    noise: Noise | None,
    heads: int,
    dropout: float,
    interpret: bool,
) -> tuple[jax.Array, Any]:
    shape = _shape(qkv_BxLxM, noise, heads, dropout, interpret)
    batch, length, _ = qkv_BxLxM.shape
    out_BxLxD, norm_BxHxL = pl.pallas_call(
        functools.partial(_forward_kernel, shape),
        grid=(length // shape.tile, heads, batch),
        in_specs=_specs(shape, shape.tile),
        out_specs=[
            pl.BlockSpec((None, shape.tile, shape.channels), lambda i, h, b: (b, i, h)),
            pl.BlockSpec((None, None, shape.tile), lambda i, h, b: (b, h, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((batch, length, heads * shape.channels), qkv_BxLxM.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
        name="attention_forward",
    )(*_arrays(shape, qkv_BxLxM, bias_M, docs_BxL, noise))
    return out_BxLxD, (qkv_BxLxM, bias_M, docs_BxL, noise, out_BxLxD, norm_BxHxL)


def _backward(
    heads: int, dropout: float, interpret: bool, saved: Any, cotangent_BxLxD: jax.Array
) -> tuple[Any, ...]:
    qkv_BxLxM, bias_M, docs_BxL, noise, out_BxLxD, norm_BxHxL = saved
    shape = _shape(qkv_BxLxM, noise, heads, dropout, interpret)
    batch, length, triple = qkv_BxLxM.shape
    blocks = length // shape.tile
    call = functools.partial(
        pl.pallas_call,
        grid=(blocks, heads, batch),
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
    )
    arrays = _arrays(shape, qkv_BxLxM, bias_M, docs_BxL, noise)
    block = pl.BlockSpec((None, shape.tile, shape.channels), lambda i, h, b: (b, i, h))
    of_block = pl.BlockSpec((None, None, shape.tile), lambda i, h, b: (b, h, i))
    # Gradients of [B, L, M], and what blocks add to the bias's: programs of both kernels write their own parts.
    gradients = [
        jax.ShapeDtypeStruct(qkv_BxLxM.shape, qkv_BxLxM.dtype),
        jax.ShapeDtypeStruct((batch, blocks, triple), jnp.float32),
    ]
    whole = [pl.BlockSpec((None, *x.shape[1:]), lambda i, h, b: (b, 0, 0)) for x in gradients]
    kinds = [jnp.float32, jnp.float32] + [jnp.uint32] * (shape.dropout > 0)
    d_qkv_BxLxM, d_bias_BxNxM, q_BxLxD, *of_queries = call(
        functools.partial(_queries_kernel, shape),
        in_specs=[*_specs(shape, shape.tile), block, block, of_block],
        out_specs=[*whole, block, *[of_block] * len(kinds)],
        out_shape=[
            *gradients,
            jax.ShapeDtypeStruct(out_BxLxD.shape, out_BxLxD.dtype),
            *(jax.ShapeDtypeStruct(norm_BxHxL.shape, kind) for kind in kinds),
        ],
        name="attention_queries",
    )(*arrays, cotangent_BxLxD, out_BxLxD, norm_BxHxL)
    row = pl.BlockSpec((None, length, shape.channels), lambda i, h, b: (b, 0, h))
    of_row = pl.BlockSpec((None, None, length), lambda i, h, b: (b, h, 0))
    of_queries.append(norm_BxHxL)
    d_qkv_BxLxM, d_bias_BxNxM = call(
        functools.partial(_keys_kernel, shape),
        # Of the arrays, keys, values, biases and documents; the others went into what the first kernel has written.
        in_specs=[*whole, *_specs(shape, length)[-4:], row, row, *[of_row] * len(of_queries)],
        out_specs=whole,
        out_shape=gradients,
        input_output_aliases={0: 0, 1: 1},
        name="attention_keys",
    )(d_qkv_BxLxM, d_bias_BxNxM, *arrays[-4:], q_BxLxD, cotangent_BxLxD, *of_queries)
    d_bias_M = jnp.sum(d_bias_BxNxM, axis=(0, 1)).astype(bias_M.dtype)
    return d_qkv_BxLxM, d_bias_M, None, None


_attend.defvjp(_forward, _backward)


def _shape(
    qkv_BxLxM: jax.Array, noise: Noise | None, heads: int, dropout: float, interpret: bool
) -> _Shape:
    _, length, triple = qkv_BxLxM.shape
    rate = dropout if noise is not None else 0.0
    return _Shape(length, heads, triple // 3 // heads, rate, interpret)


def _arrays(
    shape: _Shape, qkv_BxLxM: jax.Array, bias_M: jax.Array, docs_BxL: jax.Array, noise: Noise | None
) -> list[jax.Array]:
    """What kernels read first: noise keys where there is dropout, queries, keys, values, biases, documents."""
    keys = noise if shape.dropout and noise is not None else ()
    bias_3xHxC = bias_M.astype(jnp.float32).reshape(3, shape.heads, shape.channels)
    return [*keys, *[qkv_BxLxM] * 3, bias_3xHxC, docs_BxL.astype(jnp.float32) * _APART]


def _specs(shape: _Shape, queries: int) -> list[pl.BlockSpec]:
    """Of these, where programs see so many queries: one block of them, or all."""
    c = shape.channels

    def part(at: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, shape.length, c), lambda i, h, b: (b, 0, at * shape.heads + h))

    def own(i: Any, h: Any, b: Any) -> tuple[Any, ...]:
        return b, i if queries < shape.length else 0, h

    keys = [pl.BlockSpec((None,), lambda i, h, b: (b,))] * (2 if shape.dropout else 0)
    return [
        *keys,
        pl.BlockSpec((None, queries, c), own),
        part(1),
        part(2),
        pl.BlockSpec((3, None, c), lambda i, h, b: (0, h, 0)),
        pl.BlockSpec((None, shape.length), lambda i, h, b: (b, 0)),
    ]


def _forward_kernel(shape: _Shape, *refs: Any) -> None:
    keys, (q_ref, k_ref, v_ref, bias_ref, docs_ref, out_ref, norm_ref) = _split(shape, refs)
    first = pl.program_id(0) * shape.tile
    q_QxC = _with_bias(q_ref[...], bias_ref)
    docs_Qx1 = docs_ref[pl.ds(first, shape.tile)][:, None]
    line_Q = _lines(shape, keys, first + _arange(shape.tile))

    def block(j: Any, seen: Any) -> Any:
        top_Q, total_Q, used_Q, out_QxC = seen
        at = pl.ds(j * shape.tile, shape.tile)
        v_KxC = v_ref[at, :]
        scores_QxK = tile.dot(q_QxC, k_ref[at, :], 1, 1)
        scores_QxK = _within(shape, scores_QxK, docs_Qx1, docs_ref[at][None, :])
        new_Q = jnp.maximum(top_Q, jnp.max(scores_QxK, axis=1) * shape.scale)
        weights_QxK = _weights(shape, scores_QxK, new_Q[:, None])
        shrink_Q = jnp.exp2(top_Q - new_Q)
        total_Q = total_Q * shrink_Q + jnp.sum(weights_QxK, axis=1)
        if line_Q is not None:
            key_K = j * shape.tile + _arange(shape.tile)
            keep_QxK = _keep(shape, line_Q[:, None], key_K[None, :])
            weights_QxK = jnp.where(keep_QxK, weights_QxK, np.float32(0))
            used_Q = used_Q * shrink_Q + jnp.sum(weights_QxK, axis=1)
        out_QxC = out_QxC * shrink_Q[:, None] + tile.dot(
            weights_QxK.astype(v_KxC.dtype), v_KxC, 1, 0
        )
        return new_Q, total_Q, used_Q, out_QxC

    nothing_Q = jnp.zeros((shape.tile,), jnp.float32)
    nothing_QxC = jnp.zeros((shape.tile, shape.channels), jnp.float32)
    seen = (nothing_Q - jnp.inf, nothing_Q, nothing_Q, nothing_QxC)
    top_Q, total_Q, used_Q, out_QxC = jax.lax.fori_loop(0, shape.length // shape.tile, block, seen)
    # Every weight brings the values' bias along; without dropout they add up to 1.
    out_QxC += (total_Q if line_Q is None else used_Q)[:, None] * bias_ref[2, :][None, :]
    share_Q = shape.grown / total_Q
    out_ref[...] = (out_QxC * share_Q[:, None]).astype(out_ref.dtype)
    norm_ref[...] = top_Q + jnp.log2(total_Q)


class _Queries(NamedTuple):
    """What a tile of the backward pass needs of its queries."""

    q_QxC: jax.Array  # with their bias
    cotangent_QxC: jax.Array
    norm_Q: jax.Array  # log2 of the sum of the exponentials of their scores
    plus_Q: jax.Array  # what is added to the gradients of their weights
    minus_Q: jax.Array  # what those of the dropped weights are
    docs_Q: jax.Array
    line_Q: jax.Array | None = None  # what the noise of their weights goes by, if there is dropout


def _queries_kernel(shape: _Shape, *refs: Any) -> None:
    """The gradients of a block's queries, over all keys, and what of these queries the other kernel needs."""
    keys, (q_ref, k_ref, v_ref, bias_ref, docs_ref, cotangent_ref, out_ref, norm_ref, *results) = (
        _split(shape, refs)
    )
    d_ref, sum_ref, q_out, plus_out, minus_out, *line_out = results
    own_Q = pl.program_id(0) * shape.tile + _arange(shape.tile)
    cotangent_QxC = cotangent_ref[...]
    wide_QxC = cotangent_QxC.astype(jnp.float32)
    # What the weights lose since they add up to 1, and with it what the values' bias adds.
    minus_Q = -jnp.sum(wide_QxC * out_ref[...].astype(jnp.float32), axis=1)
    bias_Q = jnp.sum(wide_QxC * bias_ref[2, :][None, :], axis=1)
    some = _Queries(
        _with_bias(q_ref[...], bias_ref),
        cotangent_QxC,
        norm_ref[...],
        bias_Q * shape.grown + minus_Q,
        minus_Q,
        docs_ref[pl.ds(pl.program_id(0) * shape.tile, shape.tile)],
        _lines(shape, keys, own_Q),
    )
    q_out[...], plus_out[...], minus_out[...] = some.q_QxC, some.plus_Q, some.minus_Q
    if some.line_Q is not None:
        line_out[0][...] = some.line_Q

    def by_keys(j: Any, dq_QxC: Any) -> Any:
        at = pl.ds(j * shape.keys, shape.keys)
        k_KxC = k_ref[at, :]
        at_K = j * shape.keys + _arange(shape.keys)
        _, d_QxK = _gradients_of_scores(shape, some, k_KxC, v_ref[at, :], docs_ref[at], at_K, 0)
        return dq_QxC + tile.dot(d_QxK.astype(k_KxC.dtype), k_KxC, 1, 0)

    nothing = jnp.zeros((shape.tile, shape.channels), jnp.float32)
    steps = shape.length // shape.keys
    _put(shape, d_ref, sum_ref, 0, jax.lax.fori_loop(0, steps, by_keys, nothing))


def _keys_kernel(shape: _Shape, *refs: Any) -> None:
    """The gradients of a block's keys and values, over all queries."""
    _, _, k_ref, v_ref, _, docs_ref, q_ref, cotangent_ref, *of_queries, d_ref, sum_ref = refs
    plus_ref, minus_ref, *line_ref, norm_ref = of_queries
    first = pl.program_id(0) * shape.tile
    own, own_K = pl.ds(first, shape.tile), first + _arange(shape.tile)
    k_KxC, v_KxC, docs_K = k_ref[own, :], v_ref[own, :], docs_ref[own]

    def by_queries(i: Any, sums: Any) -> Any:
        dk_KxC, dv_KxC = sums
        at = pl.ds(i * shape.tile, shape.tile)
        vectors = [x[at] for x in (norm_ref, plus_ref, minus_ref, docs_ref, *line_ref)]
        some = _Queries(q_ref[at, :], cotangent_ref[at, :], *vectors)
        used_KxQ, d_KxQ = _gradients_of_scores(shape, some, k_KxC, v_KxC, docs_K, own_K, 1)
        dv_KxC += tile.dot(used_KxQ.astype(k_KxC.dtype), some.cotangent_QxC, 1, 0)
        dk_KxC += tile.dot(d_KxQ.astype(k_KxC.dtype), some.q_QxC, 1, 0)
        return dk_KxC, dv_KxC

    nothing = jnp.zeros((shape.tile, shape.channels), jnp.float32)
    steps = shape.length // shape.tile
    dk_KxC, dv_KxC = jax.lax.fori_loop(0, steps, by_queries, (nothing, nothing))
    _put(shape, d_ref, sum_ref, 1, dk_KxC)
    _put(shape, d_ref, sum_ref, 2, dv_KxC)


def _gradients_of_scores(
    shape: _Shape,
    some: _Queries,
    k_KxC: jax.Array,
    v_KxC: jax.Array,
    docs_K: jax.Array,
    at_K: jax.Array,
    axis: int,
) -> tuple[jax.Array, jax.Array]:
    """The weights that were used, and the gradient of their scores, with the queries along this axis.

    Weights as they are before dropout lets those that stay grow, and scores before they are scaled.
    """

    def cross(of_queries: jax.Array, of_keys: jax.Array) -> jax.Array:
        pair = (of_keys, of_queries) if axis else (of_queries, of_keys)
        return tile.dot(*pair, 1, 1)

    def along(of_queries: jax.Array) -> jax.Array:
        return jnp.expand_dims(of_queries, 1 - axis)

    scores = cross(some.q_QxC, k_KxC)
    scores = _within(shape, scores, along(some.docs_Q), jnp.expand_dims(docs_K, axis))
    weights = used = _weights(shape, scores, along(some.norm_Q))
    d = cross(some.cotangent_QxC, v_KxC)
    if some.line_Q is None:
        return used, weights * (d + along(some.plus_Q))
    kept = _keep(shape, along(some.line_Q), jnp.expand_dims(at_K, axis))
    d = ptx.fma(d, shape.grown, along(some.plus_Q), shape.interpret)
    used = weights * kept.astype(jnp.float32)  # a select would become two instructions on bfloat16
    return used, weights * jnp.where(kept, d, along(some.minus_Q))


def _put(shape: _Shape, d_ref: Any, sum_ref: Any, part: int, x_NxC: jax.Array) -> None:
    """Writes the gradient of the program's queries (part 0), keys or values, and what it adds to the bias's."""
    x_NxC *= shape.grown if part == 2 else np.float32(shape.channels**-0.5)
    i = pl.program_id(0)
    channels = pl.ds((part * shape.heads + pl.program_id(1)) * shape.channels, shape.channels)
    d_ref[pl.ds(i * shape.tile, shape.tile), channels] = x_NxC.astype(d_ref.dtype)
    sum_ref[i, channels] = jnp.sum(x_NxC, axis=0)


def _split(shape: _Shape, refs: Any) -> tuple[Any, Any]:
    """Noise keys, of which there are none without dropout, and the rest."""
    count = 2 if shape.dropout else 0
    return refs[:count], refs[count:]


def _within(shape: _Shape, scores: jax.Array, docs: jax.Array, others: jax.Array) -> jax.Array:
    """Scores that give no weight beyond a document: by arithmetic, of which a GPU does twice as much as comparisons."""
    return ptx.less_square(scores, docs - others, shape.interpret)


def _weights(shape: _Shape, scores: jax.Array, norm: jax.Array) -> jax.Array:
    """Exponentials of scores, which are still to be scaled, over 2^norm."""
    return ptx.exp2(ptx.fma(scores, shape.scale, -norm, shape.interpret), shape.interpret)


def _with_bias(q_QxC: jax.Array, bias_ref: Any) -> jax.Array:
    """Queries with their bias. Keys go without, since it would add the same to all scores of a query."""
    return (q_QxC.astype(jnp.float32) + bias_ref[0, :][None, :]).astype(q_QxC.dtype)


def _lines(shape: _Shape, keys: Any, query_Q: jax.Array) -> jax.Array | None:
    """What the noise of the weights of these queries goes by, where there is dropout; see `noise.along`."""
    if not keys:
        return None
    number_Q = pl.program_id(1) * shape.length + query_Q
    return noise_ops.hashed(number_Q.astype(jnp.uint32), *(key[...] for key in keys))


def _keep(shape: _Shape, line: jax.Array, key: jax.Array) -> jax.Array:
    """Which weights dropout keeps of lines and keys that broadcast: those that `noise.dropout` does."""
    return noise_ops.along(line, key.astype(jnp.uint32)) >= noise_ops.threshold(shape.dropout)


def _arange(size: int) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, (size,), 0)
