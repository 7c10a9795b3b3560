"""Fresh parameters: those of one shape are drawn together, because a GPU's compiler takes minutes for a draw each."""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

UNTUNED = {"xla_gpu_autotune_level": 0}  # the compiler's options for a program that runs once

Shape = tuple[int, ...]
Draw = Callable[[jax.Array, Shape, float], jax.Array]


def _draw(key: jax.Array, shape: Shape, stddev: float) -> jax.Array:
    return jax.random.truncated_normal(key, -2, 2, shape, jnp.float32) * stddev


_drawing: ContextVar[Draw] = ContextVar("_drawing", default=_draw)


def truncated_normal(stddev: float) -> Callable[..., jax.Array]:
    """Normal of this deviation cut at two deviations, without rescaling (TensorFlow's, used by the original)."""

    def init(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return _drawing.get()(key, shape, stddev).astype(dtype)

    return init


def fresh(module: nn.Module, key: jax.Array, *arguments: Any, **options: Any) -> dict[str, Any]:
    """What `module.init` gives, but for rounding: a first pass asks what is to be drawn, a second uses it."""
    asked: list[tuple[jax.Array, Shape, float]] = []

    def ask(key: jax.Array, shape: Shape, stddev: float) -> jax.Array:
        asked.append((key, shape, stddev))
        return jnp.zeros(shape)

    with _drawn_by(ask):
        module.init(key, *arguments, **options)
    drawn = iter(_together(asked))
    with _drawn_by(lambda *asked_again: next(drawn)):
        return module.init(key, *arguments, **options)["params"]


def _together(asked: list[tuple[jax.Array, Shape, float]]) -> list[jax.Array]:
    """These draws, in their order."""
    alike: dict[tuple[Shape, float], list[int]] = collections.defaultdict(list)
    for i, (_, shape, stddev) in enumerate(asked):
        alike[shape, stddev].append(i)
    drawn: dict[int, jax.Array] = {}
    for (shape, stddev), places in alike.items():
        draw = functools.partial(_draw, shape=shape, stddev=stddev)
        values = jax.vmap(draw)(jnp.stack([asked[i][0] for i in places]))
        # Without the barrier XLA draws each by itself again.
        drawn |= zip(places, jax.lax.optimization_barrier(values), strict=True)
    return [drawn[i] for i in range(len(asked))]


@contextlib.contextmanager
def _drawn_by(draw: Draw) -> Iterator[None]:
    """Within, `truncated_normal` draws by this function."""
    here = get_opaque_trace_state(convention="flax")

    def draw_here(key: jax.Array, shape: Shape, stddev: float) -> jax.Array:
        # Of a parameter that a module has already, Flax has JAX find out the shape, in a trace of its own.
        inside = get_opaque_trace_state(convention="flax") != here
        return (_draw if inside else draw)(key, shape, stddev)

    before = _drawing.set(draw_here)
    try:
        yield
    finally:
        _drawing.reset(before)
