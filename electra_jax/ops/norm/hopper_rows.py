"""What the GPU's kernels of LayerNorm share: how rows are cut, read, normalised, dropped and written.

These kernels are limited by memory, so a row stays in registers from its load to its store, and sums over rows (the
gradients of parameters) are kept there for all the rows of a program: it writes them once, and XLA adds up what the
programs wrote. Dropout is the addressed noise of `noise.py`, number for number.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from electra_jax.ops import machine
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.ops.norm.plain import LAYER_NORM_EPS

MOST_WIDTH = 2048
_WARPS = 4  # of a program, at least
_VALUES = {1: 8, 3: 4}  # of a part that a thread holds, by parts: 16 and 8 bytes of bfloat16

Parts = list[jax.Array]  # rows of a block, float32 [R, C]: the columns a part at a time
Masks = list[jax.Array | None]  # for such parts, what dropout keeps; None where there is none
Sums = list[tuple[jax.Array, ...]]  # by parts, as many kinds [R, C] as the kernel has


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    positions: int  # B x L
    length: int
    width: int
    part: int  # columns worked on at a time, a power of two
    parts: int
    rows: int  # of a block
    warps: int
    programs: int  # as many as run at once; each takes every so many-th block
    dropout: float

    @property
    def blocks(self) -> int:
        """Of rows."""
        return self.positions // self.rows


def unsupported(what: str, shape_BxLxD: tuple[int, ...], *dtypes: jnp.dtype) -> str:
    """The reason why the kernels do not support such rows; empty where they do."""
    _, length, width = shape_BxLxD
    if width % 64 or width > MOST_WIDTH:
        return f"{what} of width {width} (but multiples of 64 up to {MOST_WIDTH})"
    for dtype in dtypes:
        if dtype not in (jnp.bfloat16, jnp.float32):
            return f"{dtype} (but bfloat16 and float32)"
    rows = _cut(width)[2]
    if length % rows:
        return f"rows of {length} tokens x {width} (but multiples of {rows} tokens)"
    return ""


def shape_of(shape_BxLxD: tuple[int, ...], fitting: dict[int, int], dropout: float) -> Shape:
    """The shape of a kernel; `fitting`: programs of four warps at once on a multiprocessor, by parts."""
    batch, length, width = shape_BxLxD
    part, parts, rows, warps = _cut(width)
    programs = min(
        batch * length // rows, machine.HOPPER.multiprocessors * fitting[parts] * _WARPS // warps
    )
    sizes = {"part": part, "parts": parts, "rows": rows, "warps": warps, "programs": programs}
    return Shape(positions=batch * length, length=length, width=width, dropout=dropout, **sizes)


def _cut(width: int) -> tuple[int, int, int, int]:
    """Three parts of a quarter of the next power of two where they hold the width, else one part of all of it."""
    part, parts = pl.next_power_of_2(width), 1
    if 4 * width <= 3 * part:
        part, parts = part // 4, 3
    rows = max(1, 32 * _WARPS * _VALUES[parts] // part)
    return part, parts, rows, rows * part // (32 * _VALUES[parts])


def flat(x_BxLxD: jax.Array) -> jax.Array:
    """[B * L, D]."""
    return x_BxLxD.reshape(-1, x_BxLxD.shape[-1])


def call(
    kernel: Any,
    shape: Shape,
    *,
    noise: Noise | None,
    arrays: list[jax.Array],
    results: list[jax.ShapeDtypeStruct],
    interpret: bool,
) -> list[jax.Array]:
    """The kernel, with every array whole, and wide enough for the last part, before each program.

    Where there is dropout, the keys of its noise come first.
    """

    def whole(x: Any) -> pl.BlockSpec:
        *outer, last = x.shape
        padded = pl.cdiv(last, shape.part) * shape.part
        return pl.BlockSpec((*outer, padded), lambda i: (0,) * x.ndim)

    arrays = [*(noise or ()), *arrays]
    return pl.pallas_call(
        functools.partial(kernel, shape),
        grid=(shape.programs,),
        in_specs=[whole(x) for x in arrays],
        out_specs=[whole(x) for x in results],
        out_shape=results,
        compiler_params=plt.CompilerParams(num_warps=shape.warps, num_stages=1),
        interpret=interpret,
        name=kernel.__name__.strip("_").removesuffix("_kernel"),
    )(*arrays)


def over_blocks(shape: Shape, block: Callable[[jax.Array, Any], Any], carry: Any) -> Any:
    """Calls `block` with the first row of each block of this program, and what it returned before."""
    program = pl.program_id(0)
    steps = (shape.blocks - 1 - program) // shape.programs + 1

    def step(i: jax.Array, carry: Any) -> Any:
        return block((program + i * shape.programs) * shape.rows, carry)

    return jax.lax.fori_loop(0, steps, step, carry)


def read(shape: Shape, ref: Any, first: Any, rows: int) -> Parts:
    """These rows, 0 beyond the width."""
    parts = []
    for p in range(shape.parts):
        at = ref.at[pl.ds(first, rows), pl.ds(p * shape.part, shape.part)]
        inside = _inside(shape, p, rows)
        x_RxC = plt.load(at, mask=inside, other=None if inside is None else 0)
        parts.append(x_RxC.astype(jnp.float32))
    return parts


def write(shape: Shape, ref: Any, first: Any, part: int, x_RxC: jax.Array) -> None:
    """This part of the rows from `first` on."""
    rows = x_RxC.shape[0]
    plt.store(
        ref.at[pl.ds(first, rows), pl.ds(part * shape.part, shape.part)],
        x_RxC.astype(ref.dtype),
        mask=_inside(shape, part, rows),
    )


def no_sums(shape: Shape, kinds: int) -> Sums:
    """So many kinds of sums over rows, before the first."""
    return [(jnp.zeros((shape.rows, shape.part), jnp.float32),) * kinds] * shape.parts


def like_sums(shape: Shape, kinds: int) -> jax.ShapeDtypeStruct:
    """The array that `write_sums` of all programs fill."""
    return jax.ShapeDtypeStruct((shape.programs * kinds, shape.width), jnp.float32)


def write_sums(shape: Shape, ref: Any, sums: Sums) -> None:
    """This program's."""
    for p, of_part in enumerate(sums):
        for k, sum_RxC in enumerate(of_part):
            sum_1xC = jnp.sum(sum_RxC, axis=0, keepdims=True)
            write(shape, ref, pl.program_id(0) * len(of_part) + k, p, sum_1xC)


def total_sums(shape: Shape, sums_PxD: jax.Array) -> jax.Array:
    """All programs' together, by kind [K, D]."""
    return jnp.sum(sums_PxD.reshape(shape.programs, -1, shape.width), axis=0)


def normal(shape: Shape, x: Parts) -> tuple[Parts, jax.Array]:
    """The rows at mean 0 and variance 1, and what they were multiplied by [R, 1]."""
    mean_Rx1 = _mean(shape, x)
    centred = []
    for p, x_RxC in enumerate(x):
        inside = _inside(shape, p, shape.rows)
        off_RxC = x_RxC - mean_Rx1
        centred.append(off_RxC if inside is None else jnp.where(inside, off_RxC, 0.0))
    rate_Rx1 = jax.lax.rsqrt(_mean(shape, [c * c for c in centred]) + np.float32(LAYER_NORM_EPS))
    return [c * rate_Rx1 for c in centred], rate_Rx1


def before_normal(shape: Shape, cotangent: Parts, of_normal: tuple[Parts, jax.Array]) -> Parts:
    """The gradient of what `normal` took, by that of the rows it gave and those themselves."""
    rows, rate_Rx1 = of_normal
    level_Rx1 = _mean(shape, cotangent)
    tilt_Rx1 = _mean(shape, [a * b for a, b in zip(cotangent, rows, strict=True)])
    return [(a - level_Rx1 - b * tilt_Rx1) * rate_Rx1 for a, b in zip(cotangent, rows, strict=True)]


def dropout_masks(shape: Shape, keys: Any, first: jax.Array) -> Masks:
    """Which elements of the rows from `first` on dropout keeps, part by part: `noise.dropout`'s choice."""
    if not keys:
        return [None] * shape.parts
    low, high = (ref[first // shape.length] for ref in keys)
    position_Rx1 = jax.lax.broadcasted_iota(jnp.int32, (shape.rows, 1), 0) + first % shape.length
    line_Rx1 = noise_ops.hashed(position_Rx1.astype(jnp.uint32), low, high)
    parts: Masks = []
    for p in range(shape.parts):
        at_1xC = jax.lax.broadcasted_iota(jnp.int32, (1, shape.part), 1) + p * shape.part
        bits_RxC = noise_ops.along(line_Rx1, at_1xC.astype(jnp.uint32))
        parts.append(bits_RxC >= noise_ops.threshold(shape.dropout))
    return parts


def dropped(shape: Shape, x_RxC: jax.Array, mask_RxC: jax.Array | None) -> jax.Array:
    """x with dropout, of which it keeps these elements."""
    if mask_RxC is None:
        return x_RxC
    return jnp.where(mask_RxC, x_RxC * np.float32(1 / (1 - shape.dropout)), np.float32(0))


def _inside(shape: Shape, part: int, rows: int) -> jax.Array | None:
    """Which columns of this part exist, [rows, part]; None where all do."""
    left = shape.width - part * shape.part
    if left >= shape.part:
        return None
    return jax.lax.broadcasted_iota(jnp.int32, (rows, shape.part), 1) < left


def _mean(shape: Shape, parts: Parts) -> jax.Array:
    """Of each row [R, 1]; the parts are 0 beyond the width."""
    total_RxC = functools.reduce(jnp.add, parts)
    return jnp.sum(total_RxC, axis=1, keepdims=True) * np.float32(1 / shape.width)
