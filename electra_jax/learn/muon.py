"""Muon: matrices are moved by their momentum made orthogonal, everything else by Adam.

Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks"; the numbers are those that
`optax.contrib.muon` has by default.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from electra_jax.learn import adam
from electra_jax.learn.arrays import flatten, nest
from electra_jax.learn.mesh import whole
from electra_jax.ops.barrier import written

Params = dict[str, Any]

ITERATIONS = 5
# Of x, x^3 and x^5: steepest at 0 among polynomials that bring singular values in (0, 1] near 1, into 0.7 to 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# The last layer of a head, whose outputs are answers and not features.
_LAST = re.compile(r"^[^/]*head[^/]*/(.*/)?out/kernel$")


class MuonState(NamedTuple):
    """The mean of the gradients of the matrices, and the state of Adam for the rest, which also counts the steps."""

    momentum: Any
    adam: Any


def is_hidden(path: str, x: Any) -> bool:
    """Whether a parameter is a matrix between hidden states: no table, and not the last layer of a head."""
    return x.ndim == 2 and path.endswith("/kernel") and not _LAST.search(path)


def is_matrix(path: str, x: Any) -> bool:
    """Whether a parameter is a matrix at all, tables of embeddings included."""
    del path
    return bool(x.ndim == 2)


MATRICES: dict[str, Callable[[str, Any], bool]] = {"hidden": is_hidden, "all": is_matrix}


def scale_by_muon(
    rest: optax.GradientTransformationExtraArgs,
    *,
    momentum: float,
    eps: float,
    consistent_rms: float,
    matrices: Callable[[str, Any], bool],
) -> optax.GradientTransformationExtraArgs:
    """Gradients -> `orthogonal` of their momentum for `matrices`, and what `rest`, unbiased Adam, makes of the others.

    The momentum is Nesterov's. `consistent_rms`: see `scale`.
    """

    def divided(tree: Params) -> tuple[dict[str, Any], Params]:
        flat = flatten(tree)
        own = {path: x for path, x in flat.items() if matrices(path, x)}
        return own, nest({path: x for path, x in flat.items() if path not in own})

    def init(params: Params) -> MuonState:
        own, others = divided(params)
        return MuonState(nest(jax.tree.map(jnp.zeros_like, own)), rest.init(others))

    def update(
        grads: Params,
        state: MuonState,
        params: Params | None = None,
        *,
        finite: jax.Array | bool = True,
        **extra: Any,
    ) -> tuple[Params, MuonState]:
        del params, extra
        own, others = divided(grads)
        moved, after = rest.update(others, state.adam, finite=finite)
        mean = {
            path: jnp.where(finite, momentum * m + (1 - momentum) * own[path], m)
            for path, m in flatten(state.momentum).items()
        }
        mean = written(mean)
        ahead = adam.look_ahead(mean, own, momentum, after.count)
        steps = {
            path: scale(x.shape, consistent_rms) * orthogonal(whole(x), eps)
            for path, x in ahead.items()
        }
        return nest(steps | flatten(moved)), MuonState(nest(mean), after)

    return optax.GradientTransformationExtraArgs(init, update)


def scale(shape: tuple[int, ...], consistent_rms: float) -> float:
    """The factor of an orthogonal [in, out]: sqrt(max(1, out / in)), Jordan's and optax's default.

    Above 0, `consistent_rms` is about the root of the mean square of every step: Liu et al. (2025, arXiv:2502.16982)
    take 0.2, with which rates and decay of AdamW can be kept.
    """
    inputs, outputs = shape
    if consistent_rms:
        return float(consistent_rms * max(inputs, outputs) ** 0.5)
    return float(max(1.0, outputs / inputs) ** 0.5)


def orthogonal(x_MxN: jax.Array, eps: float) -> jax.Array:
    """About U V' of the singular value decomposition x = U S V', by Newton-Schulz iterations of degree five."""
    a, b, c = COEFFICIENTS
    flipped = x_MxN.shape[0] > x_MxN.shape[1]
    # The shorter side: products of [M, M], M being at most N.
    x = x_MxN.T if flipped else x_MxN
    x = x / (jnp.sqrt(jnp.sum(jnp.square(x))) + eps)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if flipped else x
