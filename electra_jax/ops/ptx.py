"""Float32 functions of as few instructions as a GPU has for them, for Triton kernels that are short of instructions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import triton as plt
from jax.typing import ArrayLike

# log2 of the normal distribution function at x <= 0 is this polynomial of x, from the constant up. It was fitted so
# that neither the function nor x times it is off by more than 2e-8 but for rounding, also far out.
_BELOW = (
    -0.9999999403953552,
    1.1511069536209106,
    -0.45919305086135864,
    0.052546437829732895,
    0.0071427831426262856,
    0.00020247981592547148,
    -0.00015727843856438994,
    -3.296794602647424e-05,
    -2.275866336276522e-06,
)
# That of the normal density is this one of x^2.
_DENSITY = (np.log2(2 * np.pi) / -2, np.log2(math.e) / -2)


def fma(a: jax.Array, b: ArrayLike, c: ArrayLike, interpret: bool) -> jax.Array:
    """a * b + c in a's shape, as one instruction, where the compiler makes two of it; b and c broadcast."""
    b, c = (jnp.full(a.shape, x, jnp.float32) if np.ndim(x) == 0 else x for x in (b, c))
    b, c = (jnp.broadcast_to(x, a.shape) for x in (b, c))
    return a * b + c if interpret else _instruction("fma.rn.f32 $0, $1, $2, $3;", a, b, c)


def less_square(a: jax.Array, b: jax.Array, interpret: bool) -> jax.Array:
    """a - b^2 in a's shape, as one instruction."""
    return (
        a - b * b
        if interpret
        else _instruction("{.reg .f32 n; neg.f32 n, $2; fma.rn.f32 $0, n, $2, $1;}", a, b)
    )


def exp2(x: jax.Array, interpret: bool) -> jax.Array:
    """2^x as one instruction, where the compiler adds some that keep results below 2^-126, here 0."""
    return jnp.exp2(x) if interpret else _instruction("ex2.approx.ftz.f32 $0, $1;", x)


def normal_below(x: jax.Array, interpret: bool) -> jax.Array:
    """The normal distribution function at x <= 0."""
    return exp2(_polynomial(_BELOW, x, interpret), interpret)


def normal_density(x: jax.Array, interpret: bool) -> jax.Array:
    """The normal density at any x."""
    return exp2(_polynomial(_DENSITY, x * x, interpret), interpret)


def _polynomial(coefficients: tuple[float, ...], x: jax.Array, interpret: bool) -> jax.Array:
    """With coefficients from the constant up."""
    *rest, last = coefficients
    value = jnp.full(x.shape, last, jnp.float32)
    for coefficient in reversed(rest):
        value = fma(value, x, coefficient, interpret)
    return value


def _instruction(text: str, *arguments: jax.Array) -> jax.Array:
    """Of PTX, from float32 to float32."""
    (result,) = plt.elementwise_inline_asm(
        text,
        args=arguments,
        constraints=",".join(["=f"] + ["f"] * len(arguments)),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(arguments[0].shape, jnp.float32)],
    )
    return result
