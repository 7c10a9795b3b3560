"""One train step: corrupt, differentiate, clip, descend; a pure function of (state, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.learn import optim
from electra_jax.learn.optim import OptimSpec
from electra_jax.model.electra import Params
from electra_jax.objective.protocol import Batch, Keys, Objective, Sums
from electra_jax.ops import noise

State = dict[str, Any]  # step int32, params, opt_state, skipped {total, run} int32, extra
SHARE = "share"  # also in the state of a run with a budget: float32, what of its time is over (see budget.py)


def init_state(objective: Objective, spec: OptimSpec, seed: int, timed: bool = False) -> State:
    """The state before the first step; `timed`: with the share of a budget."""
    params = objective.init(noise.seed_key(seed))
    share = {SHARE: jnp.zeros((), jnp.float32)} if timed else {}
    return share | {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "opt_state": optim.direction(spec).init(params),
        "skipped": {"total": jnp.zeros((), jnp.int32), "run": jnp.zeros((), jnp.int32)},
        "extra": objective.extra(),
    }


def step_keys(seed: int, step: jax.Array) -> Keys:
    """The keys of a step: a function of the seed and the step number alone."""
    names = ("mask", "sample", "dropout")
    keys = jax.random.split(jax.random.fold_in(noise.seed_key(seed), step), len(names))
    return dict(zip(names, keys, strict=True))


def make_train_step(
    objective: Objective,
    spec: OptimSpec,
    total_steps: int,
    accumulation: int,
    seed: int,
    arrange: Callable[[Params], Params] = lambda params: params,
    first: int = 0,
) -> Callable[[State, Batch], tuple[State, Sums]]:
    """The train step: (state, batch of [B, L] arrays) -> (state, metric sums).

    The schedule of the learning rate has `total_steps` steps and begins with step `first` of the run; a state with the
    share of a budget is as far in it as that share, where its steps are not further.

    B rows are cut into `accumulation` micro-batches; since noise is addressed by global row and the loss is divided
    by the whole batch's denominators, the cut changes nothing but rounding. A step whose loss or gradient is not
    finite leaves parameters and moments alone and is counted. `arrange` says where the parameters lie while they are
    used, and changes no value.
    """
    descend = optim.direction(spec)

    def train_step(state: State, batch: Batch) -> tuple[State, Sums]:
        keys = step_keys(seed, state["step"])
        batch = objective.corrupt(batch | {"rows": jnp.arange(batch["ids"].shape[0])}, keys["mask"])
        totals = objective.totals(batch)

        def gradient(part: Batch) -> tuple[Params, tuple[jax.Array, Sums]]:
            def loss(params: Params) -> tuple[jax.Array, Sums]:
                return objective.loss(
                    arrange(params), part, totals, keys, state["step"], state["extra"]
                )

            (value, sums), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
            return grads, (value, sums)

        grads, (loss, sums) = accumulate(gradient, batch, accumulation)
        norm = optim.global_norm(grads)
        at = state["step"] - first
        timed = {SHARE: state[SHARE]} if SHARE in state else {}
        if timed:
            at = jnp.maximum(at, state[SHARE] * total_steps)
        rate = optim.learning_rate(spec, at, total_steps)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = descend.update(
            optim.clip(grads, norm, spec.clip_norm),
            state["opt_state"],
            state["params"],
            finite=finite,
        )
        params = jax.tree.map(lambda p, u: p - rate * u, state["params"], updates)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        state = timed | {
            "step": state["step"] + 1,
            "params": jax.tree.map(keep, params, state["params"]),
            "opt_state": opt_state,
            "skipped": {
                "total": state["skipped"]["total"] + ~finite,
                "run": jnp.where(finite, 0, state["skipped"]["run"] + 1),
            },
            "extra": state["extra"],
        }
        reported = {
            "grad_norm": norm,
            "learning_rate": rate,
            "total_loss": loss,
            **state["skipped"],
        }
        return state, sums | {f"step/{name}": value for name, value in reported.items()}

    return train_step


def accumulate(function: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """The sum of `function` over `parts` micro-batches of the batch, one after another.

    Micro-batch m takes rows m, m + parts, ...: with rows sharded in blocks over devices, every device keeps its own.
    """
    if parts == 1:
        return function(batch)
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, part: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(part)), None

    return jax.lax.scan(add, zeros, split)[0]
