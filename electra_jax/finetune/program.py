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

from electra_jax.finetune import network
from electra_jax.finetune.learner import TaskLearner
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import OptimOptions
from electra_jax.finetune.rows import Arrays
from electra_jax.learn import mesh as meshes
from electra_jax.learn import program as programs
from electra_jax.learn import step as steps
from electra_jax.learn.parts import Part
from electra_jax.learn.step import State
from electra_jax.learn.step import make_train_step as make_step
from electra_jax.model import initial
from electra_jax.model.electra import Params
from electra_jax.ops import machine

# What a step reports, by the names that metrics.jsonl has.
REPORTED = {
    "loss": "total_loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "skipped_total": "total",
    "skipped_run": "run",
}
INIT, DROPOUT = 0, 1  # what a seed's keys are for
# Of a CPU's micro-batch: tokens, and elements of their hidden states where the width is small. Measured for width 256
# (docs/finetuning.md); with fewer tokens the weights, which every part reads anew, are what costs.
MICRO_TOKENS, MICRO_ELEMENTS = 1024, 1024 * 256


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What the step needs besides state and batch."""

    network: NetworkSpec
    optim: OptimOptions
    layer_decay: float
    reduction: str  # mean | sum
    steps: int
    accumulation: int = 0  # micro-batches of a step; 0: `micro_batches`

    def learner(self, task: str) -> TaskLearner:
        """What a step of this task learns."""
        return TaskLearner(
            network=self.network,
            task=task,
            reduction=self.reduction,
            layer_decay=self.layer_decay,
            off_by_one=self.optim.layer_decay_off_by_one,
            frozen_layers=self.optim.frozen_layers,
        )

    def parts(self) -> Sequence[Part]:
        """Those of the parameters; the same for every task."""
        whole = Part(optim=self.optim.spec(self.steps, 1.0), steps=self.steps)
        return self.learner(self.network.heads[0][0]).parts(whole)


def make_train_step(spec: StepSpec, task: str) -> Callable[[State, Any], tuple[State, Any]]:
    """The train step of a task: (state, batch) -> (state, {"loss", "grad_norm", "learning_rate", "skipped"...}).

    Dropout is addressed by the run's seed, the step, and the row's place in the batch.
    """

    def keys(state: State) -> dict[str, jax.Array]:
        of_run = jax.random.fold_in(jax.random.key(state["seed"]), DROPOUT)
        return {"dropout": jax.random.fold_in(of_run, state["step"])}

    def accumulation(batch: Any) -> int:
        return spec.accumulation or micro_batches(batch["ids"].shape, spec.network.dims.spec.width)

    step = make_step(spec.learner(task), spec.parts(), keys=keys, accumulation=accumulation)

    def train_step(state: State, batch: Any) -> tuple[State, Any]:
        state, sums = step(state, batch)
        return state, {ours: sums[f"step/{name}"] for ours, name in REPORTED.items()}

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
    learner = spec.learner(spec.network.heads[0][0])
    params = learner.init(jax.random.fold_in(jax.random.key(seed), jnp.uint32(INIT)))
    params = params | (encoder or {})
    return steps.init_state(learner, spec.parts(), params, seed=seed, peak_lr=peak_lr)


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
        self.abstract_state = programs.abstract(shapes, mesh, runs)
        self._shardings = programs.shardings(self.abstract_state)
        self._rows = programs.rows(mesh, runs)
        self._init = self._jit_init()
        self._steps: dict[str, Any] = {}
        self._predictions: dict[str, Any] = {}

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
            step = make_train_step(self.spec, task)
            self._steps[task] = programs.jit_step(
                step, self.mesh, self.abstract_state, runs=self.runs
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
            self._predictions[task] = jax.jit(
                jax.vmap(one, (0, None)) if self.runs else one,
                out_shardings=NamedSharding(self.mesh, P()),  # for every process to read
            )
        return self._predictions[task](
            params,
            self.place(
                {name: batch[name] for name in self.spec.network.inputs(task)},
                programs.rows(self.mesh),
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
        return {name: programs.place_array(x, sharding) for name, x in batch.items()}

    def params(self, flat: Params) -> Params:
        """Host parameters of one run on their devices (of a program of one run)."""
        return programs.place(flat, self._shardings["params"])
