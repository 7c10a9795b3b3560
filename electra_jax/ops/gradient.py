"""Functions whose gradients are written out."""

from collections.abc import Callable
from typing import Any

import jax


def by_hand(gradients: Callable[..., tuple[Any, ...]]) -> Callable[[Callable[..., Any]], Any]:
    """Decorates a function with `gradients(arguments, cotangent)`, one for each argument; only arguments are kept."""

    def decorate(function: Callable[..., Any]) -> Any:
        differentiable = jax.custom_vjp(function)
        differentiable.defvjp(lambda *arguments: (function(*arguments), arguments), gradients)
        return differentiable

    return decorate
