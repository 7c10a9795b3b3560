"""The compiled programs of fine-tuning: the step and the prediction of one run, or of several at once."""

import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from electra_jax.finetune import network, rates
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import OptimOptions
from electra_jax.finetune.rows import Arrays
from electra_jax.learn import mesh as meshes
from electra_jax.learn import optim
from electra_jax.model import initial
from electra_jax.model.electra import Params
from electra_jax.ops import machine
from electra_jax.pretrain.program import place_array
from electra_jax.pretrain.step import accumulate

State = dict[str, Any]  # step, seed, peak_lr, params, opt_state, skipped {total, run}
INIT, DROPOUT = 0, 1  # what a seed's keys are for
# Of a CPU's micro-batch: tokens, and elements of their hidden states where the width is small. Measured for width 256
# (docs/finetuning.md); with fewer tokens the weights, which every part reads anew, are what costs.
MICRO_TOKENS, MICRO_ELEMENTS = 1024, 1024 * 256


@dataclass(frozen=True)
class StepSpec:
    """What the step needs besides state and batch."""

    network: NetworkSpec
    optim: OptimOptions
    layer_decay: float
    reduction: str  # mean | sum
    steps: int
    accumulation: int = 0  # micro-batches of a step; 0: `micro_batches`


def make_train_step(spec: StepSpec) -> Callable[[str, State, Any], tuple[State, Any]]:
    """(task, state, batch) -> (state, {"loss", "grad_norm", "learning_rate", "skipped"...}); pure.

    Dropout is addressed by the run's seed, the step, and the row's place in the batch, and the loss is divided by what
    the whole batch holds: cutting it into micro-batches changes nothing but rounding. A step whose loss or gradient
    is not finite leaves parameters and moments alone and is counted.
    """
    descent = spec.optim.spec(spec.steps, 1.0)
    descend = optim.direction(descent)
    dims = spec.network.dims.spec

    def train_step(task: str, state: State, batch: Any) -> tuple[State, Any]:
        key = jax.random.fold_in(
            jax.random.fold_in(jax.random.key(state["seed"]), DROPOUT), state["step"]
        )
        head = spec.network.head(task)
        drops = dims.dropout > 0 or dims.attention_dropout > 0 or head.dropout > 0
        count = jnp.maximum(network.loss_count(head, batch), 1.0)

        def gradient(part: Any) -> tuple[jax.Array, Params]:
            noise = network.dropout_noise(key, part, part["at"]) if drops else None

            def loss(params: Params) -> jax.Array:
                params = rates.stop_frozen(params, dims.layers, spec.optim.frozen_layers)
                out = network.apply(spec.network, params, task, part, noise, training=True)
                total = network.loss_sum(head, out, part)
                return total if spec.reduction == "sum" else total / count

            return jax.value_and_grad(loss)(state["params"])

        parts = spec.accumulation or micro_batches(batch["ids"].shape, dims.width)
        batch = batch | {"at": jnp.arange(batch["ids"].shape[0])}
        value, grads = accumulate(gradient, batch, parts)
        norm = optim.global_norm(grads)
        rate = state["peak_lr"] * optim.learning_rate(descent, state["step"], spec.steps)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        updates, opt_state = descend.update(
            optim.clip(grads, norm, spec.optim.clip_norm),
            state["opt_state"],
            state["params"],
            finite=finite,
        )
        factors = rates.multipliers(
            state["params"],
            dims.layers,
            spec.layer_decay,
            spec.optim.layer_decay_off_by_one,
            spec.optim.frozen_layers,
        )
        params = jax.tree.map(
            lambda p, u, f: p - (rate * f) * u if f else p, state["params"], updates, factors
        )
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        skipped = {
            "total": state["skipped"]["total"] + ~finite,
            "run": jnp.where(finite, 0, state["skipped"]["run"] + 1),
        }
        state = state | {
            "step": state["step"] + 1,
            "params": jax.tree.map(keep, params, state["params"]),
            "opt_state": opt_state,
            "skipped": skipped,
        }
        told = {"loss": value, "grad_norm": norm, "learning_rate": rate}
        return state, told | {f"skipped_{name}": x for name, x in skipped.items()}

    return train_step


def micro_batches(shape: tuple[int, ...], width: int) -> int:
    """In how many parts a batch of rows [B, (C,) L] is best taken where no memory is short: 1, but on a CPU as many
    as leave about MICRO_TOKENS a part and device, for the caches' sake.
    """
    if machine.platform() != "cpu":
        return 1
    rows = shape[0] // machine.devices()
    tokens = rows * math.prod(shape[1:])
    least = tokens / max(MICRO_TOKENS, MICRO_ELEMENTS / width)
    return next(n for n in range(1, rows + 1) if rows % n == 0 and (n >= least or n == rows))


def init_state(
    spec: StepSpec, encoder: Params | None, seed: jax.Array, peak_lr: jax.Array
) -> State:
    """The state before the first step: fresh heads by seed on the given encoder, or a fresh one too."""
    params = network.init(spec.network, jax.random.fold_in(jax.random.key(seed), jnp.uint32(INIT)))
    params = params | (encoder or {})
    return {
        "step": jnp.zeros((), jnp.int32),
        "seed": seed,
        "peak_lr": peak_lr,
        "params": params,
        "opt_state": optim.direction(spec.optim.spec(spec.steps, 1.0)).init(params),
        "skipped": {"total": jnp.zeros((), jnp.int32), "run": jnp.zeros((), jnp.int32)},
    }


class Notice:
    """Says on stderr what is about to be compiled: that may take a minute, in which nothing moves.

    `most`: how many programs there can be, where it is known.
    """

    def __init__(self, most: int = 0) -> None:
        self._most, self._count = most, 0

    def __call__(self, what: str, task: str, length: int) -> None:
        """Says that the program of a task for rows of `length` tokens is compiled now."""
        self._count += 1
        of = f" of up to {self._most}" if self._most else ""
        tqdm.write(
            f"compiling program {self._count}{of}: {task}, {what}, rows of {length} tokens",
            file=sys.stderr,
        )
        sys.stderr.flush()


class Program:
    """The jitted functions of `runs` runs at once (0: of one run, whose arrays have no axis of runs).

    A function is compiled for a task and a length of rows when it first meets them; `notice` is
    told before.
    """

    def __init__(
        self, spec: StepSpec, mesh: Mesh, runs: int = 0, notice: "Notice | None" = None
    ) -> None:
        self.spec, self.mesh, self.runs = spec, mesh, runs
        self.notice = notice
        self._met: set[tuple[str, str, int]] = set()
        shapes = jax.eval_shape(
            functools.partial(init_state, spec, None),
            jax.ShapeDtypeStruct((), jnp.uint32),
            jax.ShapeDtypeStruct((), jnp.float32),
        )
        free = {name: NamedSharding(mesh, P()) for name in ("seed", "peak_lr")}
        placed = free | meshes.place({k: v for k, v in shapes.items() if k not in free}, mesh)
        self.abstract_state = jax.tree.map(self._abstract, shapes, placed)
        self._shardings = jax.tree.map(lambda s: s.sharding, self.abstract_state)
        self._rows = self._sharding(meshes.ROWS)
        self._init = self._jit_init()
        self._steps: dict[str, Any] = {}
        self._predictions: dict[str, Any] = {}

    def _sharding(self, spec: P) -> NamedSharding:
        return NamedSharding(self.mesh, P(None, *spec) if self.runs else spec)

    def _abstract(self, shape: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        lead = (self.runs,) if self.runs else ()
        return jax.ShapeDtypeStruct(
            (*lead, *shape.shape), shape.dtype, sharding=self._sharding(sharding.spec)
        )

    def _jit_init(self) -> Any:
        def init(encoder: Params | None, seed: jax.Array, peak_lr: jax.Array) -> State:
            one = functools.partial(init_state, self.spec, encoder)
            return jax.vmap(one)(seed, peak_lr) if self.runs else one(seed, peak_lr)

        return jax.jit(init, out_shardings=self._shardings, compiler_options=initial.UNTUNED)

    def init(self, encoder: Params | None, seeds: Sequence[int], peaks: Sequence[float]) -> State:
        """The states before the first step of runs with these seeds and learning rates."""
        seed, peak = np.array(seeds, np.uint32), np.array(peaks, np.float32)
        return self._init(encoder, *((seed, peak) if self.runs else (seed[0], peak[0])))

    def jitted_step(self, task: str) -> Any:
        """(state, placed batch) -> (state, what it tells) for a task; the state is donated."""
        if task not in self._steps:
            one = functools.partial(make_train_step(self.spec), task)
            step = meshes.on_mesh(one, self.mesh)
            self._steps[task] = jax.jit(
                jax.vmap(step) if self.runs else step,
                donate_argnums=0,
                out_shardings=(self._shardings, None),
            )
        return self._steps[task]

    def step(self, task: str, state: State, batch: Arrays) -> tuple[State, Any]:
        """One step; the state is donated. With several runs the batch has their axis in front."""
        self._meet("training", task, batch)
        return self.jitted_step(task)(state, self.place(batch, self._rows))

    def predict(self, task: str, params: Params, batch: Arrays) -> Any:
        """The head's outputs, by every run for the same batch [B, L]."""
        self._meet("prediction", task, batch)
        if task not in self._predictions:
            one = meshes.on_mesh(functools.partial(self._predict, task), self.mesh)
            self._predictions[task] = jax.jit(jax.vmap(one, (0, None)) if self.runs else one)
        return self._predictions[task](
            params,
            self.place(
                {name: batch[name] for name in network.TOKENS},
                NamedSharding(self.mesh, meshes.ROWS),
            ),
        )

    def _meet(self, what: str, task: str, batch: Arrays) -> None:
        length = batch["ids"].shape[-1]
        if (what, task, length) not in self._met:
            self._met.add((what, task, length))
            if self.notice is not None:
                self.notice(what, task, length)

    def _predict(self, task: str, params: Params, batch: Any) -> Any:
        return network.apply(self.spec.network, params, task, batch)

    def place(self, batch: Arrays, sharding: NamedSharding) -> dict[str, jax.Array]:
        """A batch of numpy arrays on its devices."""
        return {name: place_array(x, sharding) for name, x in batch.items()}

    def params(self, flat: Params) -> Params:
        """Host parameters of one run on their devices (of a program of one run)."""
        return jax.tree.map(place_array, flat, self._shardings["params"])
