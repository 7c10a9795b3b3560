"""THE train step: prepare, differentiate, clip, descend part by part; a pure function of (state, batch)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.learn import optim
from electra_jax.learn import parts as partition
from electra_jax.learn.learner import Batch, Context, Keys, Learner, Params, Sums
from electra_jax.learn.parts import Part
from electra_jax.ops import noise

# step int32, params, opt_state (of the one part, or by part), skipped {total, run} int32, carried; and where they vary:
State = dict[str, Any]
SHARE = "share"  # of its time that a run with a budget has spent, float32
PEAK = "peak_lr"  # of one of several runs in a program, float32: a factor of every rate


def init_state(learner: Learner, parts: Sequence[Part], params: Params, **varying: Any) -> State:
    """The state before the first step; `varying` is what else it holds (SHARE, PEAK, a seed)."""
    return varying | {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "opt_state": partition.init(parts, params),
        "skipped": {"total": jnp.zeros((), jnp.int32), "run": jnp.zeros((), jnp.int32)},
        "carried": learner.carried(params),
    }


def step_keys(seed: int, step: jax.Array) -> Keys:
    """The keys of a step: a function of the seed and the step number alone."""
    names = ("mask", "sample", "dropout")
    keys = jax.random.split(jax.random.fold_in(noise.seed_key(seed), step), len(names))
    return dict(zip(names, keys, strict=True))


def make_train_step(
    learner: Learner,
    parts: Sequence[Part],
    *,
    keys: Callable[[State], Keys],
    accumulation: int | Callable[[Batch], int] = 1,
    arrange: Callable[[Params], Params] = lambda params: params,
) -> Callable[[State, Batch], tuple[State, Sums]]:
    """The train step: (state, batch of B rows) -> (state, metric sums).

    B rows are cut into `accumulation` micro-batches, a number or a function of the batch; since noise is addressed by
    global row and the loss is divided by the whole batch's denominators, the cut changes nothing but rounding. A step
    whose loss or gradient is not finite leaves parameters, moments and what is carried alone and is counted. `arrange`
    says where the parameters lie while they are used, and changes no value.
    """

    def train_step(state: State, batch: Batch) -> tuple[State, Sums]:
        named, rows = keys(state), batch["ids"].shape[0]
        # By row, as all that a batch has: it can be cut.
        own = {"rows": jnp.arange(rows), "step": jnp.full(rows, state["step"])}
        batch = learner.prepare(batch | own, named)
        context = Context(
            params=state["params"],
            batch=batch,
            totals=learner.totals(batch),
            keys=named,
            step=state["step"],
            carried=state["carried"],
        )
        params = partition.split(parts, state["params"])
        learning = {part.name: params[part.name] for part in partition.trainable(parts)}

        def gradient(micro: Batch) -> tuple[Params, tuple[jax.Array, Sums]]:
            def loss(learning: dict[str, Params]) -> tuple[jax.Array, Sums]:
                used = arrange(partition.join(parts, params | learning))
                return learner.loss(context._replace(params=used, batch=micro))

            (value, sums), grads = jax.value_and_grad(loss, has_aux=True)(learning)
            return grads, (value, sums)

        cut = accumulation if isinstance(accumulation, int) else accumulation(batch)
        grads, (loss, sums) = accumulate(gradient, batch, cut)
        return _descend(learner, parts, state, context, grads, loss, sums)

    return train_step


def _descend(
    learner: Learner,
    parts: Sequence[Part],
    state: State,
    context: Context,
    grads: dict[str, Params],
    loss: jax.Array,
    sums: Sums,
) -> tuple[State, Sums]:
    """The state after the step, and the sums with those of the step itself; a step that is not finite is counted."""
    norms = {name: optim.global_norm(tree) for name, tree in grads.items()}
    norm = optim.together(list(norms.values()))
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    rates = {
        part.name: partition.rate(part, state["step"], state.get(SHARE), state.get(PEAK))
        for part in partition.trainable(parts)
    }
    moved, opt_state = partition.descend(
        parts,
        params=partition.split(parts, state["params"]),
        grads=grads,
        opt_state=state["opt_state"],
        norms=norms,
        rates=rates,
        finite=finite,
    )
    params = partition.join(parts, moved)
    carried = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        learner.carry(context, params, sums),
        state["carried"],
    )
    skipped = {
        "total": state["skipped"]["total"] + ~finite,
        "run": jnp.where(finite, 0, state["skipped"]["run"] + 1),
    }
    state = state | {
        "step": state["step"] + 1,
        "params": params,
        "opt_state": opt_state,
        "skipped": skipped,
        "carried": carried,
    }
    rate = next(iter(rates.values()))
    reported = {"grad_norm": norm, "learning_rate": rate, "total_loss": loss, **skipped}
    if len(norms) > 1:
        reported |= {f"grad_norm_{name}": of_part for name, of_part in norms.items()}
    return state, sums | {f"step/{name}": value for name, value in reported.items()}


def accumulate(function: Callable[[Batch], Any], batch: Batch, micro_batches: int) -> Any:
    """The sum of `function` over `micro_batches` parts of the batch, one after another.

    Micro-batch m takes rows m, m + micro_batches, ...: with rows sharded in blocks over devices, every device keeps
    its own.
    """
    if micro_batches == 1:
        return function(batch)
    split = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, micro: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(micro)), None

    return jax.lax.scan(add, zeros, split)[0]
