"""Adam: the original's, without bias correction, and with it; Nesterov's look ahead; clipped updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from electra_jax.ops.barrier import written

Params = dict[str, Any]


class AdamMoments(NamedTuple):
    """First and second moment, shaped like the parameters."""

    mu: Any
    nu: Any


def scale_by_adam(
    beta1: float, beta2: float, eps: float, unbiased: bool, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """m / (sqrt(v) + eps) with plain moving averages, BERT's and ELECTRA's Adam, or `unbiased` ones.

    `nesterov`, of unbiased ones: m is the mean as it will be after a next step of this gradient.
    """

    def init(params: Params) -> AdamMoments | optax.ScaleByAdamState:
        moments = (jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))
        if unbiased:
            return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), *moments)
        return AdamMoments(*moments)

    def update(
        grads: Params,
        state: AdamMoments | optax.ScaleByAdamState,
        params: Params | None = None,
        *,
        finite: jax.Array | bool = True,
        **extra: Any,
    ) -> tuple[Params, AdamMoments | optax.ScaleByAdamState]:
        del params, extra
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        mu = jax.tree.map(lambda m, g: keep(beta1 * m + (1 - beta1) * g, m), state.mu, grads)
        nu = jax.tree.map(lambda v, g: keep(beta2 * v + (1 - beta2) * g * g, v), state.nu, grads)
        moments = mu, nu = written((mu, nu))
        if unbiased:
            count = keep(optax.safe_increment(state.count), state.count)
            mu = look_ahead(mu, grads, beta1, count) if nesterov else corrected(mu, beta1, count)
            nu = corrected(nu, beta2, count)
        step = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        if unbiased:
            return step, optax.ScaleByAdamState(count, *moments)
        return step, AdamMoments(*moments)

    return optax.GradientTransformationExtraArgs(init, update)


def corrected(moment: Params, beta: float, count: jax.Array) -> Params:
    """A moving average that began with 0, after `count` steps, as if it had begun with its first value."""
    return optax.tree.bias_correction(moment, beta, count)


def look_ahead(mu: Params, grads: Params, beta: float, count: jax.Array) -> Params:
    """The mean of the gradients after one more step with these `grads`, each part with its own bias correction.

    Dozat (2016), "Incorporating Nesterov Momentum into Adam", as optax has it.
    """
    mean = corrected(mu, beta, optax.safe_increment(count))
    last = corrected(grads, beta, count)
    return jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, mean, last)


def clipped_updates(
    adam: optax.GradientTransformationExtraArgs,
    after: optax.GradientTransformation,
    beta2: float,
    eps: float,
) -> optax.GradientTransformationExtraArgs:
    """What unbiased Adam and `after` it, without a state, make of every tensor, times 1 / max(1, RMS(g / sqrt(v))).

    A tensor whose gradients g suddenly grow, so that their second moment v lags behind, takes a shorter step:
    StableAdamW (Wortsman et al., 2023, arXiv:2304.13013, algorithm 2), in place of clipping by the global norm. Rows of
    a table that were never met count as zeros in the mean.
    """

    def update(
        grads: Params, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Params, Any]:
        step, state = adam.update(grads, state, params, **extra)
        step, _ = after.update(step, after.init(params), params)

        def shorter(step: jax.Array, g: jax.Array, v: jax.Array) -> jax.Array:
            rms = jnp.sqrt(jnp.mean(jnp.square(g) / jnp.maximum(v, eps * eps)))
            return step / jnp.maximum(1.0, rms)

        return jax.tree.map(shorter, step, grads, corrected(state.nu, beta2, state.count)), state

    return optax.GradientTransformationExtraArgs(adam.init, update)
