"""Self-attention on a GPU as Pallas (Triton) kernels: weights never reach main memory, dropout is the addressed noise.

The online softmax of FlashAttention (Dao, arXiv:2307.08691), read from [B, L, 3D] as one product with all three
projections writes it, so that nothing is transposed; the kernels add the projections' biases, and add up their
gradients while they have the arrays at hand. The backward pass goes over the weights twice, by queries for their
gradients and by keys for those of keys and values: it computes them again, but needs no sum that programs share.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops.attention import hopper_kernels as kernels
from electra_jax.ops.attention.inputs import Inputs

_WARPS, _STAGES = 4, 2
_APART = np.float32(2**15)  # of documents; scores between two lose its square, 1e9, or more


def supports(inputs: Inputs, heads: int, dropout: float) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del dropout  # any
    (_, length, channels), dtype = inputs.shape(heads), inputs.qkv_BxLxM.dtype
    if reason := inputs.beyond_documents():
        return reason
    if length not in (16, 32) and length % kernels.TILE:
        return f"rows of {length} tokens (but 16, 32 and multiples of {kernels.TILE})"
    if channels not in (16, 32, 64, 128):
        return f"heads of {channels} channels (but 16, 32, 64 and 128)"
    if dtype != jnp.bfloat16:
        return f"{jnp.dtype(dtype)} (but bfloat16)"
    return ""


def run(inputs: Inputs, heads: int, dropout: float, interpret: bool = False) -> jax.Array:
    """`api.self_attention` for the rows of one device. Differs from the plain one by rounding only."""
    return _run(inputs.with_bias(), heads, dropout, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _run(inputs: Inputs, heads: int, dropout: float, interpret: bool) -> jax.Array:
    return _forward(inputs, heads, dropout, interpret)[0]


def _forward(inputs: Inputs, heads: int, dropout: float, interpret: bool) -> tuple[jax.Array, Any]:
    batch, length, _ = inputs.shape(heads)
    shape = _shape(inputs, heads, dropout, interpret)
    out_BxLxD, norm_BxHxL = pl.pallas_call(
        functools.partial(kernels.forward, shape),
        grid=(length // shape.tile, heads, batch),
        in_specs=_specs(shape, shape.tile),
        out_specs=[
            pl.BlockSpec((None, shape.tile, shape.channels), lambda i, h, b: (b, i, h)),
            pl.BlockSpec((None, None, shape.tile), lambda i, h, b: (b, h, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((batch, length, heads * shape.channels), inputs.qkv_BxLxM.dtype),
            jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
        name="attention_forward",
    )(*_arrays(shape, inputs))
    return out_BxLxD, (inputs, out_BxLxD, norm_BxHxL)


def _backward(
    heads: int, dropout: float, interpret: bool, saved: Any, cotangent_BxLxD: jax.Array
) -> tuple[Any]:
    inputs, out_BxLxD, norm_BxHxL = saved
    batch, length, _ = inputs.shape(heads)
    shape = _shape(inputs, heads, dropout, interpret)
    blocks = length // shape.tile
    call = functools.partial(
        pl.pallas_call,
        grid=(blocks, heads, batch),
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
    )
    arrays = _arrays(shape, inputs)
    block = pl.BlockSpec((None, shape.tile, shape.channels), lambda i, h, b: (b, i, h))
    of_block = pl.BlockSpec((None, None, shape.tile), lambda i, h, b: (b, h, i))
    # Gradients of [B, L, M], and what blocks add to the bias's: programs of both kernels write their own parts.
    gradients = [
        jax.ShapeDtypeStruct(inputs.qkv_BxLxM.shape, inputs.qkv_BxLxM.dtype),
        jax.ShapeDtypeStruct((batch, blocks, 3 * heads * shape.channels), jnp.float32),
    ]
    whole = [pl.BlockSpec((None, *x.shape[1:]), lambda i, h, b: (b, 0, 0)) for x in gradients]
    kinds = [jnp.float32, jnp.float32] + [jnp.uint32] * (shape.dropout > 0)
    d_qkv_BxLxM, d_bias_BxNxM, q_BxLxD, *of_queries = call(
        functools.partial(kernels.queries, shape),
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
        functools.partial(kernels.keys, shape),
        # Of the arrays, keys, values, biases and documents; the others went into what the first kernel has written.
        in_specs=[*whole, *_specs(shape, length)[-4:], row, row, *[of_row] * len(of_queries)],
        out_specs=whole,
        out_shape=gradients,
        input_output_aliases={0: 0, 1: 1},
        name="attention_keys",
    )(d_qkv_BxLxM, d_bias_BxNxM, *arrays[-4:], q_BxLxD, cotangent_BxLxD, *of_queries)
    d_bias_M = jnp.sum(d_bias_BxNxM, axis=(0, 1)).astype(inputs.bias().dtype)
    return (inputs.gradients(d_qkv_BxLxM, d_bias_M),)


_run.defvjp(_forward, _backward)


def _shape(inputs: Inputs, heads: int, dropout: float, interpret: bool) -> kernels.Shape:
    _, length, channels = inputs.shape(heads)
    return kernels.Shape(
        length=length, heads=heads, channels=channels, dropout=dropout, interpret=interpret
    )


def _arrays(shape: kernels.Shape, inputs: Inputs) -> list[jax.Array]:
    """What kernels read first: noise keys where there is dropout, queries, keys, values, biases, documents."""
    bias_3xHxC = inputs.bias().astype(jnp.float32).reshape(3, shape.heads, shape.channels)
    docs_BxL = inputs.mask.docs_BxL.astype(jnp.float32) * _APART
    return [*(inputs.noise or ()), *[inputs.qkv_BxLxM] * 3, bias_3xHxC, docs_BxL]


def _specs(shape: kernels.Shape, queries: int) -> list[pl.BlockSpec]:
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
