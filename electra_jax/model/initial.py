"""Fresh parameters: those of one shape are drawn together, because a GPU's compiler takes minutes for a draw each."""

import collections
import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

UNTUNED = {"xla_gpu_autotune_level": 0}  # the compiler's options for a program that runs once


class _Draw(NamedTuple):
    """One parameter of a truncated normal distribution."""

    key: jax.Array
    shape: tuple[int, ...]
    stddev: float
    zeros: int  # rows of zeros below

    def padded(self, value: jax.Array) -> jax.Array:
        return jnp.pad(value, ((0, self.zeros), (0, 0))) if self.zeros else value


# Within `fresh`: what stands in a parameter's place until it is drawn, and its draw.
_placeholders: ContextVar[list[tuple[jax.Array, _Draw]] | None] = ContextVar(
    "_placeholders", default=None
)


def truncated_normal(stddev: float, zeros: int = 0) -> Callable[..., jax.Array]:
    """Normal of this deviation cut at two deviations, without rescaling (TensorFlow's, used by the original).

    `zeros` rows of zeros follow the rows [N, ...] that are asked for, whose numbers do not depend on them.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        draw = _Draw(key, shape, stddev, zeros)
        placeholders = _placeholders.get()
        if placeholders is None:
            return draw.padded(_normal(key, shape, stddev)).astype(dtype)
        # Not a number, so that no parameter can stay undrawn unnoticed.
        placeholder = draw.padded(jnp.full(shape, jnp.nan, dtype))
        placeholders.append((placeholder, draw))
        return placeholder

    return init


def fresh(module: nn.Module, key: jax.Array, *arguments: Any, **options: Any) -> dict[str, Any]:
    """What `module.init` gives, but for rounding."""
    placeholders: list[tuple[jax.Array, _Draw]] = []
    before = _placeholders.set(placeholders)
    try:
        params = module.init(key, *arguments, **options)["params"]
    finally:
        _placeholders.reset(before)
    # Others were asked for by Flax alone, which compares shapes where a module uses a parameter again.
    inside = {id(x) for x in jax.tree.leaves(params)}
    kept = [(id(x), draw) for x, draw in placeholders if id(x) in inside]
    drawn = dict(zip([x for x, _ in kept], _together([d for _, d in kept]), strict=True))
    return jax.tree.map(lambda x: drawn[id(x)].astype(x.dtype) if id(x) in drawn else x, params)


def _normal(key: jax.Array, shape: tuple[int, ...], stddev: float) -> jax.Array:
    return jax.random.truncated_normal(key, -2, 2, shape, jnp.float32) * stddev


def _together(draws: Sequence[_Draw]) -> list[jax.Array]:
    """The values of these draws, in their order."""
    alike: dict[tuple[tuple[int, ...], float], list[int]] = collections.defaultdict(list)
    for i, draw in enumerate(draws):
        alike[draw.shape, draw.stddev].append(i)
    values: dict[int, jax.Array] = {}
    for (shape, stddev), places in alike.items():
        normal = functools.partial(_normal, shape=shape, stddev=stddev)
        together = jax.vmap(normal)(jnp.stack([draws[i].key for i in places]))
        # Without the barrier XLA draws each by itself again.
        values |= zip(places, jax.lax.optimization_barrier(together), strict=True)
    return [draw.padded(values[i]) for i, draw in enumerate(draws)]
