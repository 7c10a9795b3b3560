"""Products with matrices, whose gradients are computed in the order that suits a CPU."""

import jax
import jax.numpy as jnp

from electra_jax.ops import gradient, target


def product(x_BxLxD: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    """x @ kernel [B, L, F] in the dtype of both, as `jnp.dot`; on a CPU its gradients are `_gradients`."""
    if target.platform() == "cpu":
        return _product(x_BxLxD, kernel_DxF)
    return jnp.dot(x_BxLxD, kernel_DxF)


def over_rows(a_NxA: jax.Array, b_NxB: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """a^T @ b [A, B] in `dtype` or that of both: the gradient of a matrix, from inputs and slopes.

    On a CPU a product wants its rows side by side, so one operand must be turned: here the narrower, or the result.
    """
    if target.platform() == "cpu" and a_NxA.shape[1] > b_NxB.shape[1]:
        # Apart, or XLA simplifies the turned product of (b, a) to that of (a, b).
        return target.apart(over_rows(b_NxB, a_NxA, dtype)).T
    return jax.lax.dot_general(a_NxA, b_NxB, (((0,), (0,)), ((), ())), preferred_element_type=dtype)


def _gradients(
    arguments: tuple[jax.Array, jax.Array], slope_BxLxF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The slope is an array of its own: XLA would compute it once more for the kernel's gradient, turned.

    Such a loop writes every number to another row, each a page apart; it took longer than the product.
    """
    x_BxLxD, kernel_DxF = arguments
    slope_BxLxF = target.apart(slope_BxLxF)
    x_NxD, slope_NxF = (a.reshape(-1, a.shape[-1]) for a in (x_BxLxD, slope_BxLxF))
    # Without a turned kernel, which fsdp would gather a second time.
    d_x_BxLxD = jax.lax.dot_general(slope_BxLxF, kernel_DxF, (((2,), (1,)), ((), ())))
    return d_x_BxLxD, over_rows(x_NxD, slope_NxF)


@gradient.by_hand(_gradients)
def _product(x_BxLxD: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    return jnp.dot(x_BxLxD, kernel_DxF)
