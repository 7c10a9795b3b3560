"""gelu(h + bias) on a GPU as two Pallas kernels, forward and backward, which read and write once.

Both are limited by memory as long as an element takes them few instructions, hence `ptx.py`. The backward pass
adds up the bias's gradient on its way: each program keeps the sums of its columns in registers until its last row, and
XLA adds up what the programs wrote.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops import machine, ptx
from electra_jax.ops.gelu.inputs import Inputs

_COLUMNS = 256  # of a block: a warp's 32 loads of 8
_ROWS = 8  # of a block
_WARPS = 4  # of a program
_PROGRAMS = 5 * machine.HOPPER.multiprocessors  # of the backward pass, that the GPU runs at once


class _Shape(NamedTuple):
    """What the backward kernel is specialised for."""

    blocks: int  # of rows
    programs: int  # for the same columns; each takes every so many-th block


def supports(inputs: Inputs) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    h_BxLxF, _ = inputs
    rows, width = math.prod(h_BxLxF.shape[:-1]), h_BxLxF.shape[-1]
    if width % _COLUMNS:
        return f"layers of width {width} (but multiples of {_COLUMNS})"
    if rows % _ROWS:
        return f"{rows} positions on a device (but multiples of {_ROWS})"
    if h_BxLxF.dtype not in (jnp.bfloat16, jnp.float32):
        return f"{h_BxLxF.dtype} (but bfloat16 and float32)"
    return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def run(inputs: Inputs, interpret: bool = False) -> jax.Array:
    """`api.bias_gelu` for the rows of one device.

    Differs from the plain implementation by rounding only: between h and the result all is float32 here.
    """
    return _forward(inputs, interpret)[0]


def _forward(inputs: Inputs, interpret: bool) -> tuple[jax.Array, Inputs]:
    h_BxLxF, bias_F = inputs
    h_NxF = h_BxLxF.reshape(-1, h_BxLxF.shape[-1])
    block = pl.BlockSpec((_ROWS, _COLUMNS), lambda i, c: (i, c))
    value_NxF = pl.pallas_call(
        functools.partial(_forward_kernel, interpret),
        grid=(h_NxF.shape[0] // _ROWS, h_NxF.shape[1] // _COLUMNS),
        in_specs=[pl.BlockSpec((1, _COLUMNS), lambda i, c: (0, c)), block],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(h_NxF.shape, h_NxF.dtype),
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=interpret,
        name="gelu",
    )(bias_F[None], h_NxF)
    return value_NxF.reshape(h_BxLxF.shape), inputs


def _backward(interpret: bool, inputs: Inputs, cotangent_BxLxF: jax.Array) -> tuple[Inputs]:
    h_BxLxF, bias_F = inputs
    width = h_BxLxF.shape[-1]
    h_NxF, cotangent_NxF = (a.reshape(-1, width) for a in (h_BxLxF, cotangent_BxLxF))
    blocks, columns = len(h_NxF) // _ROWS, width // _COLUMNS
    shape = _Shape(blocks, min(blocks, max(1, _PROGRAMS // columns)))

    def strip(rows: int) -> pl.BlockSpec:
        return pl.BlockSpec((rows, _COLUMNS), lambda c, i: (0, c))

    d_h_NxF, d_bias_PxF = pl.pallas_call(
        functools.partial(_backward_kernel, shape, interpret),
        grid=(columns, shape.programs),
        in_specs=[strip(1), strip(len(h_NxF)), strip(len(h_NxF))],
        out_specs=[strip(len(h_NxF)), pl.BlockSpec((1, _COLUMNS), lambda c, i: (i, c))],
        out_shape=[
            jax.ShapeDtypeStruct(h_NxF.shape, h_NxF.dtype),
            jax.ShapeDtypeStruct((shape.programs, width), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=1),
        interpret=interpret,
        name="gelu_backward",
    )(bias_F[None], h_NxF, cotangent_NxF)
    d_bias_F = jnp.sum(d_bias_PxF, axis=0).astype(bias_F.dtype)
    return (Inputs(d_h_NxF.reshape(h_BxLxF.shape), d_bias_F),)


run.defvjp(_forward, _backward)


def _forward_kernel(interpret: bool, bias_ref: Any, h_ref: Any, value_ref: Any) -> None:
    x_RxC = h_ref[...].astype(jnp.float32) + bias_ref[...].astype(jnp.float32)
    value_ref[...] = _gelu(x_RxC, interpret).astype(value_ref.dtype)


def _backward_kernel(
    shape: _Shape,
    interpret: bool,
    bias_ref: Any,
    h_ref: Any,
    cotangent_ref: Any,
    d_h_ref: Any,
    d_bias_ref: Any,
) -> None:
    bias_1xC = bias_ref[...].astype(jnp.float32)
    program = pl.program_id(1)
    steps = (shape.blocks - 1 - program) // shape.programs + 1

    def rows(step: Any) -> Any:
        return pl.ds((program + step * shape.programs) * _ROWS, _ROWS)

    def loaded(step: Any) -> tuple[jax.Array, jax.Array]:
        return h_ref[rows(step), :], cotangent_ref[rows(step), :]

    def block(step: jax.Array, carry: Any) -> Any:
        (h_RxC, cotangent_RxC), sum_RxC = carry
        # The next block is on its way while this one is worked on; after the last, that one once more.
        following = loaded(jnp.minimum(step + 1, steps - 1))
        x_RxC = h_RxC.astype(jnp.float32) + bias_1xC
        d_RxC = cotangent_RxC.astype(jnp.float32) * _derivative(x_RxC, interpret)
        d_h_ref[rows(step), :] = d_RxC.astype(d_h_ref.dtype)
        return following, sum_RxC + d_RxC

    nothing = jnp.zeros((_ROWS, _COLUMNS), jnp.float32)
    _, sum_RxC = jax.lax.fori_loop(0, steps, block, (loaded(0), nothing))
    d_bias_ref[...] = jnp.sum(sum_RxC, axis=0, keepdims=True)


def _gelu(x: jax.Array, interpret: bool) -> jax.Array:
    """The GELU, as max(x, 0) plus a part that is the same at -x and x."""
    below = -jnp.abs(x)
    part = ptx.normal_below(below, interpret)
    return ptx.fma(below, part, jnp.maximum(x, 0), interpret)


def _derivative(x: jax.Array, interpret: bool) -> jax.Array:
    """The derivative of the GELU; those at -x and x add up to 1."""
    below = -jnp.abs(x)
    density = ptx.normal_density(x, interpret)
    derivative = ptx.fma(below, density, ptx.normal_below(below, interpret), interpret)
    return jnp.where(x < 0, derivative, 1 - derivative)
