"""Named subsets of the parameters, each with its optimizer, schedule and rate factors, or frozen."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.learn import optim
from electra_jax.learn.arrays import flatten, nest, path_name
from electra_jax.learn.optim import OptimSpec
from electra_jax.spec import UserError


@dataclass(frozen=True, kw_only=True)
class Part:
    """Parameters that are descended together."""

    optim: OptimSpec | None  # None: frozen, without a gradient and without moments
    steps: int  # of the schedule of the learning rate
    first: int = 0  # the step of the run that the schedule begins with
    name: str = "all"
    pattern: str = (
        ""  # regular expression searched in a parameter's path; the first part that matches has it
    )
    factor: Callable[[str], float] | None = None  # path -> factor of the learning rate; None: 1


def split(parts: Sequence[Part], tree: Any) -> dict[str, Any]:
    """The tree as one of each part, by the part's name. UserError where a path is of no part.

    With one part its tree is the whole, as it is.
    """
    if len(parts) == 1 and not parts[0].pattern:
        return {parts[0].name: tree}
    found: dict[str, dict[str, Any]] = {part.name: {} for part in parts}
    for path, leaf in flatten(tree).items():
        part = next((part for part in parts if re.search(part.pattern, path)), None)
        if part is None:
            raise UserError(
                f"no part of the parameters has {path}; give one of them a pattern that matches it"
            )
        found[part.name][path] = leaf
    return {name: nest(leaves) for name, leaves in found.items()}


def join(parts: Sequence[Part], trees: dict[str, Any]) -> Any:
    """The whole of what `split` made."""
    if len(parts) == 1 and not parts[0].pattern:
        return trees[parts[0].name]
    return nest({path: leaf for tree in trees.values() for path, leaf in flatten(tree).items()})


def trainable(parts: Sequence[Part]) -> list[Part]:
    """The parts that are not frozen."""
    return [part for part in parts if part.optim is not None]


def init(parts: Sequence[Part], params: Any) -> Any:
    """The optimizer state before the first step: that of the one part, or one a part that learns, by name."""
    trees = split(parts, params)
    states = {part.name: _direction(part).init(trees[part.name]) for part in trainable(parts)}
    return states[parts[0].name] if len(parts) == 1 and states else states


def descend(
    parts: Sequence[Part],
    *,
    params: dict[str, Any],
    grads: dict[str, Any],
    opt_state: Any,
    norms: dict[str, jax.Array],
    rates: dict[str, jax.Array],
    finite: jax.Array,
) -> tuple[dict[str, Any], Any]:
    """(parameters by part, optimizer state) after a step; both as they were where it is not finite."""
    single = len(parts) == 1
    new_params, states = dict(params), {}
    for part in trainable(parts):
        name = part.name
        assert part.optim is not None
        updates, states[name] = _direction(part).update(
            optim.clip(grads[name], norms[name], part.optim.clip_norm),
            opt_state if single else opt_state[name],
            params[name],
            finite=finite,
        )
        new_params[name] = _moved(part, params[name], updates, rates[name], finite)
    return new_params, states[parts[0].name] if single and states else states


def rate(
    part: Part, step: jax.Array, share: jax.Array | None = None, peak: jax.Array | None = None
) -> jax.Array:
    """The learning rate of a part that learns, float32, at 0-based `step` of the run.

    `share` of a budget of time: the schedule is as far as that, where its steps are not further. `peak`: a factor.
    """
    assert part.optim is not None
    at = step - part.first
    if share is not None:
        at = jnp.maximum(at, share * part.steps)
    found = optim.learning_rate(part.optim, at, part.steps)
    return found if peak is None else peak * found


def _moved(part: Part, params: Any, updates: Any, rate: jax.Array, finite: jax.Array) -> Any:
    def move(path: tuple[Any, ...], p: jax.Array, update: jax.Array) -> jax.Array:
        factor = part.factor(path_name(path)) if part.factor else 1.0
        scaled = rate if factor == 1.0 else rate * factor
        return jnp.where(finite, p - scaled * update, p)

    return jax.tree_util.tree_map_with_path(move, params, updates)


def _direction(part: Part) -> Any:
    assert part.optim is not None
    return optim.direction(part.optim)
