"""The original's optimizer (Adam without bias correction), AdamW and LAMB, schedule, clipping, decay mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from electra_jax.ops.barrier import written
from electra_jax.spec import UserError, check_choice

Params = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """The config section `optim`."""

    name: str  # optimizer: adam (the original's, without bias correction) | adamw (with it) | lamb
    peak_lr: float  # the highest learning rate, which warmup rises to and decay comes down from
    warmup: int  # steps in which the rate rises from 0
    lr_power: float  # power of the polynomial decay to 0; 1: linear, 0: none
    beta1: float  # decay of the first moment, the mean of the gradient
    beta2: float  # decay of the second moment, the mean of its square
    eps: float  # added to the root of the second moment
    weight_decay: float  # decoupled weight decay, times the learning rate
    clip_norm: float  # norm of the whole gradient above which it is scaled down

    def __post_init__(self) -> None:
        check_choice("optim.name", self.name, ("adam", "adamw", "lamb"))
        for name in ("peak_lr", "warmup", "weight_decay"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"optim.{name}={value} must not be negative")
        if self.clip_norm <= 0:
            raise UserError(f"optim.clip_norm={self.clip_norm} must be above 0")


def learning_rate(spec: OptimSpec, step: jax.Array, total_steps: int) -> jax.Array:
    """The rate of 0-based `step`, float32: peak x (1 - step / total)^power x min(1, step / warmup).

    Warmup multiplies the decay, as in the released code; it does not precede it. Step 0 has rate 0.
    """
    step = step.astype(jnp.float32)
    decay = (1 - jnp.minimum(step / total_steps, 1.0)) ** spec.lr_power
    warmup = jnp.minimum(1.0, step / spec.warmup) if spec.warmup else 1.0
    return spec.peak_lr * decay * warmup


def direction(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    """Gradients -> what is subtracted, times the learning rate: Adam's step plus decoupled weight decay.

    `update` also takes `finite`, a boolean scalar: where it is False the state stays as it was.
    LAMB (You et al., 2020, arXiv:1904.00962) scales this, for every tensor that is decayed, by the
    ratio of the tensor's norm to the step's; biases and LayerNorms keep Adam's step.
    """
    adam = scale_by_adam(spec.beta1, spec.beta2, spec.eps, unbiased=spec.name != "adam")
    decayed = optax.chain(adam, optax.add_decayed_weights(spec.weight_decay, mask=decay_mask))
    if spec.name == "lamb":
        return optax.chain(decayed, optax.masked(optax.scale_by_trust_ratio(), decay_mask))
    return decayed


class AdamMoments(NamedTuple):
    """First and second moment, shaped like the parameters."""

    mu: Any
    nu: Any


def scale_by_adam(
    beta1: float, beta2: float, eps: float, unbiased: bool
) -> optax.GradientTransformationExtraArgs:
    """m / (sqrt(v) + eps) with plain moving averages, BERT's and ELECTRA's Adam, or `unbiased` ones."""

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
            mu = optax.tree.bias_correction(mu, beta1, count)
            nu = optax.tree.bias_correction(nu, beta2, count)
        step = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        if unbiased:
            return step, optax.ScaleByAdamState(count, *moments)
        return step, AdamMoments(*moments)

    return optax.GradientTransformationExtraArgs(init, update)


def with_moments(opt_state: Any, *, mu: Params, nu: Params, count: jax.Array) -> Any:
    """An optimizer state with these moments, of a run that had done `count` steps, in place of its own."""

    def replaced(node: Any) -> Any:
        if isinstance(node, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(count, mu, nu)
        return AdamMoments(mu, nu) if isinstance(node, AdamMoments) else node

    is_adam = lambda node: isinstance(node, AdamMoments | optax.ScaleByAdamState)  # noqa: E731
    return jax.tree.map(replaced, opt_state, is_leaf=is_adam)


def decay_mask(params: Params) -> Any:
    """True where weight decay applies: everything but biases and LayerNorms; embedding tables are decayed."""

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        names = [p.key for p in path]
        return names[-1] != "bias" and not any(name.endswith("norm") for name in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


def global_norm(grads: Params) -> jax.Array:
    """The norm of all gradients as one vector, float32.

    Biases and LayerNorms, two of three arrays and next to no numbers, are taken together: a kernel each would cost
    a GPU more than the arithmetic. The others may lie in parts on several devices, where they stay.
    """
    leaves = jax.tree.leaves(grads)
    vectors = [x.ravel() for x in leaves if x.ndim < 2]
    arrays = [x for x in leaves if x.ndim > 1] + ([jnp.concatenate(vectors)] if vectors else [])
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in arrays))


def together(norms: Sequence[jax.Array]) -> jax.Array:
    """The norm of vectors of these norms taken as one."""
    return norms[0] if len(norms) == 1 else jnp.sqrt(sum(jnp.square(norm) for norm in norms))


def clip(grads: Params, norm: jax.Array, limit: float) -> Params:
    """Gradients scaled down to the limit when their global norm is above it."""
    scale = limit / jnp.maximum(norm, limit)
    return jax.tree.map(lambda g: g * scale, grads)
