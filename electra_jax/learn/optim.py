"""The optimizers (the original's Adam, AdamW, LAMB, Muon, StableAdamW), schedule, clipping, decay mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import optax

from electra_jax.learn import muon
from electra_jax.learn.adam import AdamMoments, clipped_updates, scale_by_adam
from electra_jax.learn.arrays import flatten, nest
from electra_jax.spec import UserError, check_choice, check_range

Params = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """The config section `optim`."""

    name: str  # adam (the original's, uncorrected) | adamw (corrected) | lamb | muon | stable_adamw
    peak_lr: float  # the highest learning rate, which warmup rises to and decay comes down from
    warmup: int  # steps in which the rate rises from 0
    lr_power: float  # polynomial: power of the decay to 0; 1: linear, 0: none
    beta1: float  # decay of the first moment, the mean of the gradient
    beta2: float  # decay of the second moment, the mean of its square
    eps: float  # added to the root of the second moment
    weight_decay: float  # decoupled weight decay, times the learning rate
    clip_norm: float  # norm of the whole gradient above which it is scaled down
    momentum: float = 0.95  # muon: decay of the mean of a matrix's gradient
    adam_ratio: float = 1.0  # muon: rate of what Adam updates, as a ratio of the matrices' rate
    matrices: str = "hidden"  # muon: its matrices: hidden (no table, no head's last layer) | all
    consistent_rms: float = 0.0  # muon: size of a step, such as 0.2; 0: by shape, optax's default
    schedule: str = "polynomial"  # of the rate: polynomial | wsd (warmup, stable, decay at the end)
    decay_steps: int = 0  # wsd: the last steps, in which the rate comes down to 0; 0: it stays
    decay_shape: str = "1-sqrt"  # wsd: 1-sqrt (of the share that is over) | linear

    def __post_init__(self) -> None:
        check_choice("optim.name", self.name, tuple(DIRECTIONS))
        check_choice("optim.matrices", self.matrices, tuple(muon.MATRICES))
        check_choice("optim.schedule", self.schedule, tuple(SCHEDULES))
        check_choice("optim.decay_shape", self.decay_shape, tuple(SHAPES))
        muons = ("momentum", "adam_ratio", "matrices", "consistent_rms")
        self._refuse_unused("name", "muon", muons)
        self._refuse_unused("schedule", "wsd", ("decay_steps", "decay_shape"))
        check_range("optim.momentum", self.momentum, "[0, 1)")
        check_range("optim.adam_ratio", self.adam_ratio, "[0, inf)")
        check_range("optim.consistent_rms", self.consistent_rms, "[0, inf)")
        for name in ("peak_lr", "warmup", "weight_decay", "decay_steps"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"optim.{name}={value} must not be negative")
        if self.clip_norm <= 0:
            raise UserError(f"optim.clip_norm={self.clip_norm} must be above 0")

    def _refuse_unused(self, choice: str, needed: str, names: Sequence[str]) -> None:
        """UserError for an option that does nothing unless `choice` is `needed`."""
        for f in fields(self):
            value, chosen = getattr(self, f.name), getattr(self, choice)
            if f.name in names and chosen != needed and value != f.default:
                raise UserError(
                    f"optim.{f.name}={value} is an option of {needed}, but optim.{choice}={chosen}; leave it at "
                    f"{f.default} or set --config.optim.{choice}={needed}"
                )


# The share of the decay that is over -> what is left of the rate.
SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "1-sqrt": lambda share: 1 - jnp.sqrt(share),
    "linear": lambda share: 1 - share,
}


def learning_rate(spec: OptimSpec, step: jax.Array, total_steps: int) -> jax.Array:
    """The rate of 0-based `step`, float32: peak x what the schedule leaves x min(1, step / warmup).

    Warmup multiplies the decay, as in the released code; it does not precede it. Step 0 has rate 0.
    """
    step = step.astype(jnp.float32)
    decay = SCHEDULES[spec.schedule](spec, step, total_steps)
    warmup = jnp.minimum(1.0, step / spec.warmup) if spec.warmup else 1.0
    return spec.peak_lr * decay * warmup


def _polynomial(spec: OptimSpec, step: jax.Array, total_steps: int) -> jax.Array:
    """(1 - step / total)^power."""
    return (1 - jnp.minimum(step / total_steps, 1.0)) ** spec.lr_power


def _stable(spec: OptimSpec, step: jax.Array, total_steps: int) -> jax.Array:
    """1 until the last `decay_steps`, exactly, so that the rate does not depend on where the run will end; then down to
    0 at `total_steps` (Zhai et al., 2022, arXiv:2106.04560; Hu et al., 2024, arXiv:2404.06395).
    """
    over = step - level_until(spec, total_steps)
    share = jnp.clip(over / max(1, spec.decay_steps), 0.0, 1.0)
    return SHAPES[spec.decay_shape](share) if spec.decay_steps else jnp.ones_like(step)


SCHEDULES: dict[str, Callable[[OptimSpec, jax.Array, int], jax.Array]] = {
    "polynomial": _polynomial,
    "wsd": _stable,
}


def level_until(spec: OptimSpec, total_steps: int) -> int:
    """The step up to which, exclusive of it, the rates of a run do not depend on its length."""
    return total_steps - spec.decay_steps if spec.schedule == "wsd" else 0


def direction(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    """Gradients -> what is subtracted, times the learning rate: the optimizer's step plus decoupled weight decay.

    `update` also takes `finite`, a boolean scalar: where it is False the state stays as it was.
    """
    return DIRECTIONS[spec.name](spec)


def _adam(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    return optax.chain(_scaled(spec, unbiased=False), _decay(spec))


def _adamw(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    return optax.chain(_scaled(spec), _decay(spec))


def _lamb(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    """AdamW's step scaled, for every tensor that is decayed, by the ratio of the tensor's norm to the step's.

    Biases and LayerNorms keep Adam's step (You et al., 2020, arXiv:1904.00962).
    """
    return optax.chain(_adamw(spec), optax.masked(optax.scale_by_trust_ratio(), decay_mask))


def _stable_adamw(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    return clipped_updates(_scaled(spec), _decay(spec), spec.beta2, spec.eps)


def _muon(spec: OptimSpec) -> optax.GradientTransformationExtraArgs:
    """Muon with decay; what Adam updates moves, and decays, at `adam_ratio` times the rate."""
    matrices = muon.MATRICES[spec.matrices]
    steps = muon.scale_by_muon(
        _scaled(spec, nesterov=True),
        momentum=spec.momentum,
        eps=spec.eps,
        consistent_rms=spec.consistent_rms,
        matrices=matrices,
    )

    def slower(updates: Params, params: Params | None) -> Params:
        del params
        return nest(
            {
                path: x if matrices(path, x) else spec.adam_ratio * x
                for path, x in flatten(updates).items()
            }
        )

    return optax.chain(steps, _decay(spec), optax.stateless(slower))


DIRECTIONS: dict[str, Callable[[OptimSpec], optax.GradientTransformationExtraArgs]] = {
    "adam": _adam,
    "adamw": _adamw,
    "lamb": _lamb,
    "muon": _muon,
    "stable_adamw": _stable_adamw,
}


def _scaled(
    spec: OptimSpec, unbiased: bool = True, nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    return scale_by_adam(spec.beta1, spec.beta2, spec.eps, unbiased=unbiased, nesterov=nesterov)


def _decay(spec: OptimSpec) -> optax.GradientTransformation:
    return optax.add_decayed_weights(spec.weight_decay, mask=decay_mask)


def with_moments(opt_state: Any, *, mu: Params, nu: Params, count: jax.Array) -> Any:
    """An optimizer state with these moments of Adam, of a run that had done `count` steps, in place of its own.

    UserError where the optimizer is another one.
    """
    if any(isinstance(x, muon.MuonState) for x in jax.tree.leaves(opt_state, is_leaf=_is_moments)):
        raise UserError(
            "the import brought the moments of Adam, which optim.name=muon cannot go on with; set "
            "--config.optim.name=adam, or import a folder of transformers, which has weights alone"
        )

    def replaced(node: Any) -> Any:
        if isinstance(node, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(count, mu, nu)
        return AdamMoments(mu, nu) if isinstance(node, AdamMoments) else node

    return jax.tree.map(replaced, opt_state, is_leaf=_is_moments)


def _is_moments(node: Any) -> bool:
    return isinstance(node, AdamMoments | optax.ScaleByAdamState | muon.MuonState)


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
