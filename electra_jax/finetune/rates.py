"""How fast each parameter learns: layer-wise decay of the learning rate, and lower layers that do not learn."""

import re
from typing import Any

import jax

from electra_jax.learn.arrays import path_name
from electra_jax.model.electra import Params


def multipliers(params: Params, layers: int, decay: float, off_by_one: bool, frozen: int) -> Any:
    """The factor of the learning rate of every parameter: a tree of Python floats.

    As published: 1 for the heads, decay^1 for the top layer, decay^layers for the lowest and
    decay^(layers + 1) for embeddings and projection. `off_by_one` is the released code
    (optimization.py:181-193), in which everything under the heads has one more decay.
    `frozen` layers from below, and with the first of them the embeddings, have factor 0; -1 freezes
    the embeddings alone.
    """

    def factor(path: tuple[Any, ...], _: Any) -> float:
        depth = depth_of(path_name(path), layers)
        if depth is None:
            return 1.0
        if is_frozen(depth, frozen):
            return 0.0
        return decay ** (layers + 1 - depth + off_by_one)

    return jax.tree_util.tree_map_with_path(factor, params)


def depth_of(name: str, layers: int) -> int | None:
    """0 for embeddings and projection, i + 1 for encoder layer i, None for a head."""
    if name.startswith("heads_"):
        return None
    layer = re.match(r"encoder/layer_(\d+)/", name)
    return int(layer[1]) + 1 if layer else 0


def is_frozen(depth: int, frozen: int) -> bool:
    """Whether this depth does not learn when `frozen` layers are (-1: the embeddings alone)."""
    return depth <= max(frozen, 0) if frozen else False


def stop_frozen(params: Params, layers: int, frozen: int) -> Params:
    """The parameters with no gradient to what is frozen, so that its backward pass is not computed."""

    def stop(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        depth = depth_of(path_name(path), layers)
        return x if depth is None or not is_frozen(depth, frozen) else jax.lax.stop_gradient(x)

    return jax.tree_util.tree_map_with_path(stop, params) if frozen else params
