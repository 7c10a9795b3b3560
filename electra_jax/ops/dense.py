"""Products with matrices, whose gradients are computed in the order that suits a CPU."""

import jax
import jax.numpy as jnp

from electra_jax.ops import gradient
from electra_jax.ops.barrier import apart
from electra_jax.ops.kernel import Implementation, Operation


def product(x_BxLxD: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    """x @ kernel [B, L, F] in the dtype of both, as `jnp.dot`; on a CPU its gradients are `_gradients`."""
    return _PRODUCT(x_BxLxD, kernel_DxF)


def over_rows(a_NxA: jax.Array, b_NxB: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """a^T @ b [A, B] in `dtype` or that of both: the gradient of a matrix, from inputs and cotangents."""
    return _OVER_ROWS(a_NxA, b_NxB, dtype=dtype)


def _gradients(
    arguments: tuple[jax.Array, jax.Array], cotangent_BxLxF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangent is an array of its own: XLA would compute it once more for the kernel's gradient, turned.

    Such a loop writes every number to another row, each a page apart; it took longer than the product.
    """
    x_BxLxD, kernel_DxF = arguments
    cotangent_BxLxF = apart(cotangent_BxLxF)
    x_NxD, cotangent_NxF = (a.reshape(-1, a.shape[-1]) for a in (x_BxLxD, cotangent_BxLxF))
    # Without a turned kernel, which fsdp would gather a second time.
    d_x_BxLxD = jax.lax.dot_general(cotangent_BxLxF, kernel_DxF, (((2,), (1,)), ((), ())))
    return d_x_BxLxD, over_rows(x_NxD, cotangent_NxF)


@gradient.by_hand(_gradients)
def _product(x_BxLxD: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    return jnp.dot(x_BxLxD, kernel_DxF)


def _over_rows(a_NxA: jax.Array, b_NxB: jax.Array, *, dtype: jnp.dtype | None) -> jax.Array:
    return jax.lax.dot_general(a_NxA, b_NxB, (((0,), (0,)), ((), ())), preferred_element_type=dtype)


def _turned(a_NxA: jax.Array, b_NxB: jax.Array, *, dtype: jnp.dtype | None) -> jax.Array:
    """The transpose of b^T @ a, which is apart, or XLA would simplify it to a^T @ b."""
    return apart(_over_rows(b_NxB, a_NxA, dtype=dtype)).T


def _is_wide(a_NxA: jax.Array, b_NxB: jax.Array, *, dtype: jnp.dtype | None) -> str:
    """A CPU's product wants its rows side by side, so that it turns one operand, here the narrower, or the result."""
    del dtype
    return "" if a_NxA.shape[1] > b_NxB.shape[1] else "a result that is wider than high"


_PRODUCT = Operation(
    "product",
    Implementation(name="by_hand", runs_on="cpu", run=_product),
    Implementation(name="plain", run=jnp.dot),
)
_OVER_ROWS = Operation(
    "over_rows",
    Implementation(name="turned", runs_on="cpu", run=_turned, supports=_is_wide),
    Implementation(name="plain", run=_over_rows),
)
