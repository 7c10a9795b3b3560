"""LayerNorm(x + dropout(h + bias)) on a GPU as two Pallas kernels, forward and backward, which read and write once.

The backward pass computes the sum x + dropout(h + bias), its mean and its deviation once more, from x and h, which
exist anyway: nothing is kept for it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.ops.norm import hopper_rows as rows
from electra_jax.ops.norm.plain import Residual

# What fits on a multiprocessor at once for its registers, in programs of four warps, by parts of a row.
_FORWARD = {1: 8, 3: 6}
_BACKWARD = {1: 5, 3: 4}


def supports(inputs: Residual, dropout: float) -> str:
    """The reason why the kernels do not support this on one device; empty where they do."""
    del dropout  # any
    x_BxLxD, h_BxLxD, *_ = inputs
    return rows.unsupported("residuals", x_BxLxD.shape, x_BxLxD.dtype, h_BxLxD.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def run(inputs: Residual, dropout: float, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """`api.residual_norm` for the rows of one device.

    Differs from the plain implementation by rounding only: all between x, h and the result is float32 here.
    """
    return _forward(inputs, dropout, interpret)[0]


def _forward(
    inputs: Residual, dropout: float, interpret: bool
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    x_BxLxD, h_BxLxD, bias_D, scale_D, shift_D, noise = inputs
    shape = rows.shape_of(x_BxLxD.shape, _FORWARD, dropout)
    x_NxD, h_NxD = (rows.flat(a) for a in (x_BxLxD, h_BxLxD))
    kinds = dict.fromkeys((x_NxD.dtype, h_NxD.dtype))  # one array where they are one
    results = rows.call(
        _residual_norm_kernel,
        shape,
        noise=noise,
        arrays=[*(a[None] for a in (bias_D, scale_D, shift_D)), x_NxD, h_NxD],
        results=[jax.ShapeDtypeStruct(x_NxD.shape, kind) for kind in kinds],
        interpret=interpret,
    )
    y_BxLxD, operand_BxLxD = (results[i].reshape(x_BxLxD.shape) for i in (0, -1))
    return (y_BxLxD, operand_BxLxD), (x_BxLxD, h_BxLxD, bias_D, scale_D, noise)


def _backward(
    dropout: float, interpret: bool, saved: Any, cotangents_BxLxD: tuple[jax.Array, jax.Array]
) -> tuple[Residual]:
    x_BxLxD, h_BxLxD, bias_D, scale_D, noise = saved
    shape = rows.shape_of(x_BxLxD.shape, _BACKWARD, dropout)
    x_NxD, h_NxD, *cotangents_NxD = (rows.flat(a) for a in (x_BxLxD, h_BxLxD, *cotangents_BxLxD))
    results = [rows.like_sums(shape, 3), jax.ShapeDtypeStruct(x_NxD.shape, x_NxD.dtype)]
    if shape.dropout or x_NxD.dtype != h_NxD.dtype:  # else their gradients are one
        results.append(jax.ShapeDtypeStruct(h_NxD.shape, h_NxD.dtype))
    sums_PxD, *cotangents = rows.call(
        _residual_norm_backward_kernel,
        shape,
        noise=noise,
        arrays=[bias_D[None], scale_D[None], x_NxD, h_NxD, *cotangents_NxD],
        results=results,
        interpret=interpret,
    )
    d_bias_D, d_scale_D, d_shift_D = rows.total_sums(shape, sums_PxD).astype(bias_D.dtype)
    dx_BxLxD, dh_BxLxD = (cotangents[i].reshape(x_BxLxD.shape) for i in (0, -1))
    return (Residual(dx_BxLxD, dh_BxLxD, d_bias_D, d_scale_D, d_shift_D),)


run.defvjp(_forward, _backward)


def _residual_norm_kernel(shape: rows.Shape, *refs: Any) -> None:
    inputs = 5 + 2 * bool(shape.dropout)
    *keys, bias_ref, scale_ref, shift_ref, x_ref, h_ref = refs[:inputs]
    bias, scale, shift = (rows.read(shape, ref, 0, 1) for ref in (bias_ref, scale_ref, shift_ref))

    def block(first: jax.Array, carry: None) -> None:
        x, h = (rows.read(shape, ref, first, shape.rows) for ref in (x_ref, h_ref))
        normal, _ = rows.normal(
            shape, _total(shape, x, h, bias, rows.dropout_masks(shape, keys, first))
        )
        for p, n in enumerate(normal):
            y_RxC = n * scale[p] + shift[p]
            for y_ref in refs[inputs:]:
                rows.write(shape, y_ref, first, p, y_RxC)
        return carry

    rows.over_blocks(shape, block, None)


def _residual_norm_backward_kernel(shape: rows.Shape, *refs: Any) -> None:
    inputs = 6 + 2 * bool(shape.dropout)
    *keys, bias_ref, scale_ref, x_ref, h_ref, y_cotangent_ref, operand_cotangent_ref = refs[:inputs]
    sums_ref, dx_ref, *dh_ref = refs[inputs:]
    bias, scale = (rows.read(shape, ref, 0, 1) for ref in (bias_ref, scale_ref))

    def block(first: jax.Array, sums: rows.Sums) -> rows.Sums:
        x, h, of_y, of_operand = (
            rows.read(shape, ref, first, shape.rows)
            for ref in (x_ref, h_ref, y_cotangent_ref, operand_cotangent_ref)
        )
        cotangent = [a + b for a, b in zip(of_y, of_operand, strict=True)]
        masks = rows.dropout_masks(shape, keys, first)
        normal = rows.normal(shape, _total(shape, x, h, bias, masks))
        inner = [a * b for a, b in zip(cotangent, scale, strict=True)]
        added = []
        for p, dx_RxC in enumerate(rows.before_normal(shape, inner, normal)):
            dh_RxC = rows.dropped(shape, dx_RxC, masks[p])
            rows.write(shape, dx_ref, first, p, dx_RxC)
            for ref in dh_ref:
                rows.write(shape, ref, first, p, dh_RxC)
            added.append((dh_RxC, cotangent[p] * normal[0][p], cotangent[p]))
        return jax.tree.map(jnp.add, sums, added)

    rows.write_sums(shape, sums_ref, rows.over_blocks(shape, block, rows.no_sums(shape, 3)))


def _total(
    shape: rows.Shape, x: rows.Parts, h: rows.Parts, bias: rows.Parts, masks: rows.Masks
) -> rows.Parts:
    """x + dropout(h + bias), part by part."""
    return [a + rows.dropped(shape, b + c, k) for a, b, c, k in zip(x, h, bias, masks, strict=True)]
