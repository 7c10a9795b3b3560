"""dropout(LayerNorm(x)) on a GPU as two Pallas kernels, forward and backward, which read and write once.

The backward pass computes the mean and the deviation of x once more: nothing but x is kept for it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.ops.norm import hopper_rows as rows
from electra_jax.ops.norm.plain import Normed

# What fits on a multiprocessor at once for its registers, in programs of four warps, by parts of a row.
_FORWARD = {1: 8, 3: 8}
_BACKWARD = {1: 7, 3: 4}


def supports(inputs: Normed, dropout: float, dtype: jnp.dtype) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del dropout  # any
    x_BxLxD = inputs.x_BxLxD
    return rows.unsupported("a LayerNorm", x_BxLxD.shape, x_BxLxD.dtype, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def run(inputs: Normed, dropout: float, dtype: jnp.dtype, interpret: bool = False) -> jax.Array:
    """`api.norm` for the rows of one device.

    Differs from the plain implementation by rounding only: all between x and the result is float32 here.
    """
    return _forward(inputs, dropout, dtype, interpret)[0]


def _forward(
    inputs: Normed, dropout: float, dtype: jnp.dtype, interpret: bool
) -> tuple[jax.Array, Any]:
    x_BxLxD, scale_D, shift_D, noise = inputs
    shape = rows.shape_of(x_BxLxD.shape, _FORWARD, dropout)
    x_NxD = rows.flat(x_BxLxD)
    (y_NxD,) = rows.call(
        _norm_kernel,
        shape,
        noise=noise,
        arrays=[scale_D[None], shift_D[None], x_NxD],
        results=[jax.ShapeDtypeStruct(x_NxD.shape, dtype)],
        interpret=interpret,
    )
    return y_NxD.reshape(x_BxLxD.shape), (x_BxLxD, scale_D, noise)


def _backward(
    dropout: float, dtype: jnp.dtype, interpret: bool, saved: Any, cotangent_BxLxD: jax.Array
) -> tuple[Normed]:
    del dtype
    x_BxLxD, scale_D, noise = saved
    shape = rows.shape_of(x_BxLxD.shape, _BACKWARD, dropout)
    x_NxD, cotangent_NxD = (rows.flat(a) for a in (x_BxLxD, cotangent_BxLxD))
    sums_PxD, dx_NxD = rows.call(
        _norm_backward_kernel,
        shape,
        noise=noise,
        arrays=[scale_D[None], x_NxD, cotangent_NxD],
        results=[rows.like_sums(shape, 2), jax.ShapeDtypeStruct(x_NxD.shape, x_NxD.dtype)],
        interpret=interpret,
    )
    d_scale_D, d_shift_D = rows.total_sums(shape, sums_PxD).astype(scale_D.dtype)
    return (Normed(dx_NxD.reshape(x_BxLxD.shape), d_scale_D, d_shift_D),)


run.defvjp(_forward, _backward)


def _norm_kernel(shape: rows.Shape, *refs: Any) -> None:
    *keys, scale_ref, shift_ref, x_ref, y_ref = refs
    scale, shift = (rows.read(shape, ref, 0, 1) for ref in (scale_ref, shift_ref))

    def block(first: jax.Array, carry: None) -> None:
        normal, _ = rows.normal(shape, rows.read(shape, x_ref, first, shape.rows))
        masks = rows.dropout_masks(shape, keys, first)
        for p, n in enumerate(normal):
            y_RxC = rows.dropped(shape, n * scale[p] + shift[p], masks[p])
            rows.write(shape, y_ref, first, p, y_RxC)
        return carry

    rows.over_blocks(shape, block, None)


def _norm_backward_kernel(shape: rows.Shape, *refs: Any) -> None:
    *keys, scale_ref, x_ref, cotangent_ref, sums_ref, dx_ref = refs
    scale = rows.read(shape, scale_ref, 0, 1)

    def block(first: jax.Array, sums: rows.Sums) -> rows.Sums:
        x, cotangent = (rows.read(shape, ref, first, shape.rows) for ref in (x_ref, cotangent_ref))
        masks = rows.dropout_masks(shape, keys, first)
        cotangent = [rows.dropped(shape, s, k) for s, k in zip(cotangent, masks, strict=True)]
        normal = rows.normal(shape, x)
        inner = [a * b for a, b in zip(cotangent, scale, strict=True)]
        for p, dx_RxC in enumerate(rows.before_normal(shape, inner, normal)):
            rows.write(shape, dx_ref, first, p, dx_RxC)
        added = [(s * n, s) for s, n in zip(cotangent, normal[0], strict=True)]
        return jax.tree.map(jnp.add, sums, added)

    rows.write_sums(shape, sums_ref, rows.over_blocks(shape, block, rows.no_sums(shape, 2)))
