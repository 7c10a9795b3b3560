"""What a program of the GPU's attention kernels does: one block of queries, or of keys, of one head and row."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from electra_jax.ops import noise as noise_ops
from electra_jax.ops import ptx, tile

TILE = 64  # queries or keys of a program, and of those on the other side that it looks at together
_FEW = 32  # keys that programs of `queries` look at together in short rows, and more of them run at once
_SHORT = 128


class Shape(NamedTuple):
    """What the kernels are specialised for."""

    length: int
    heads: int
    channels: int  # of a head
    dropout: float
    interpret: bool

    @property
    def tile(self) -> int:
        """Queries, or keys, of a program, and what it looks at together of the other side."""
        return min(TILE, self.length)

    @property
    def keys(self) -> int:
        """Those that `queries` looks at together."""
        return min(_FEW if self.length <= _SHORT else TILE, self.length)

    @property
    def scale(self) -> np.float32:
        """Of the products of queries and keys, whose exponentials are of 2."""
        return np.float32(self.channels**-0.5 * np.log2(math.e))

    @property
    def grown(self) -> np.float32:
        """What dropout multiplies the weights that stay by."""
        return np.float32(1 / (1 - self.dropout))


def forward(shape: Shape, *refs: Any) -> None:
    """The output of a block of queries, over all keys, and log2 of the sum of the exponentials of their scores."""
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


def queries(shape: Shape, *refs: Any) -> None:
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
        _, d_QxK = _gradients_of_scores(
            shape, some, k_KxC=k_KxC, v_KxC=v_ref[at, :], docs_K=docs_ref[at], at_K=at_K, axis=0
        )
        return dq_QxC + tile.dot(d_QxK.astype(k_KxC.dtype), k_KxC, 1, 0)

    nothing = jnp.zeros((shape.tile, shape.channels), jnp.float32)
    steps = shape.length // shape.keys
    _put(shape, d_ref, sum_ref, 0, jax.lax.fori_loop(0, steps, by_keys, nothing))


def keys(shape: Shape, *refs: Any) -> None:
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
        used_KxQ, d_KxQ = _gradients_of_scores(
            shape, some, k_KxC=k_KxC, v_KxC=v_KxC, docs_K=docs_K, at_K=own_K, axis=1
        )
        dv_KxC += tile.dot(used_KxQ.astype(k_KxC.dtype), some.cotangent_QxC, 1, 0)
        dk_KxC += tile.dot(d_KxQ.astype(k_KxC.dtype), some.q_QxC, 1, 0)
        return dk_KxC, dv_KxC

    nothing = jnp.zeros((shape.tile, shape.channels), jnp.float32)
    steps = shape.length // shape.tile
    dk_KxC, dv_KxC = jax.lax.fori_loop(0, steps, by_queries, (nothing, nothing))
    _put(shape, d_ref, sum_ref, 1, dk_KxC)
    _put(shape, d_ref, sum_ref, 2, dv_KxC)


def _gradients_of_scores(
    shape: Shape,
    some: _Queries,
    *,
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


def _put(shape: Shape, d_ref: Any, sum_ref: Any, part: int, x_NxC: jax.Array) -> None:
    """Writes the gradient of the program's queries (part 0), keys or values, and what it adds to the bias's."""
    x_NxC *= shape.grown if part == 2 else np.float32(shape.channels**-0.5)
    i = pl.program_id(0)
    channels = pl.ds((part * shape.heads + pl.program_id(1)) * shape.channels, shape.channels)
    d_ref[pl.ds(i * shape.tile, shape.tile), channels] = x_NxC.astype(d_ref.dtype)
    sum_ref[i, channels] = jnp.sum(x_NxC, axis=0)


def _split(shape: Shape, refs: Any) -> tuple[Any, Any]:
    """Noise keys, of which there are none without dropout, and the rest."""
    count = 2 if shape.dropout else 0
    return refs[:count], refs[count:]


def _within(shape: Shape, scores: jax.Array, docs: jax.Array, others: jax.Array) -> jax.Array:
    """Scores that give no weight beyond a document: by arithmetic, of which a GPU does twice as much as comparisons."""
    return ptx.less_square(scores, docs - others, shape.interpret)


def _weights(shape: Shape, scores: jax.Array, norm: jax.Array) -> jax.Array:
    """Exponentials of scores, which are still to be scaled, over 2^norm."""
    return ptx.exp2(ptx.fma(scores, shape.scale, -norm, shape.interpret), shape.interpret)


def _with_bias(q_QxC: jax.Array, bias_ref: Any) -> jax.Array:
    """Queries with their bias. Keys go without, since it would add the same to all scores of a query."""
    return (q_QxC.astype(jnp.float32) + bias_ref[0, :][None, :]).astype(q_QxC.dtype)


def _lines(shape: Shape, keys: Any, query_Q: jax.Array) -> jax.Array | None:
    """What the noise of the weights of these queries goes by, where there is dropout; see `noise.along`."""
    if not keys:
        return None
    number_Q = pl.program_id(1) * shape.length + query_Q
    return noise_ops.hashed(number_Q.astype(jnp.uint32), *(key[...] for key in keys))


def _keep(shape: Shape, line: jax.Array, key: jax.Array) -> jax.Array:
    """Which weights dropout keeps of lines and keys that broadcast: those that `noise.dropout` does."""
    return noise_ops.along(line, key.astype(jnp.uint32)) >= noise_ops.threshold(shape.dropout)


def _arange(size: int) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, (size,), 0)
