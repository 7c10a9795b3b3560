"""The compiled programs of a run: what the loop, the tests, the benchmark and the planner all execute."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax import files
from electra_jax.data.source import Prepared
from electra_jax.host import heap
from electra_jax.learn import mesh as meshes
from electra_jax.learn.learner import Batch, Context, Learner, Sums
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.parts import Part
from electra_jax.learn.step import SHARE, State, init_state, make_train_step, step_keys
from electra_jax.model import initial
from electra_jax.ops import noise
from electra_jax.pretrain.options import Phase, RunSpec

EVALUATION_SEED = 0  # of the fixed masks and samples of held-out evaluation, the same in every run
# Without it XLA takes fast GPU kernels that add in whatever order their threads arrive; no matter on CPU and TPU.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
_LEAST_COMPILE_TIME = "jax_persistent_cache_min_compile_time_secs"
FIELDS = ("ids", "types", "docs", "word_starts", "positions")

EvalStep = Callable[[Any, Any, Batch, jax.Array], tuple[Sums, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Program:
    """The jitted functions of a run and the placement of what they take; nothing is compiled before its first use."""

    objective: Learner
    mesh: Mesh
    abstract_state: Any  # ShapeDtypeStructs with shardings
    abstract_batch: dict[str, jax.ShapeDtypeStruct]
    init: Callable[[], State]
    train_step: Any  # jitted (state, batch) -> (state, sums); the state is donated
    eval_step: (
        EvalStep  # (params, carried, batch, number of its first row) -> (sums, per-token arrays)
    )

    @property
    def batch_sharding(self) -> NamedSharding:
        """Rows over every device."""
        return self.abstract_batch["ids"].sharding

    def compile_train_step(self) -> Any:
        """The train step compiled ahead of its first call."""
        compiled = self.train_step.lower(self.abstract_state, self.abstract_batch).compile()
        heap.give_back()  # half a GiB that the compiler took would stay for the whole run
        return compiled

    def scalar(self, value: int) -> jax.Array:
        """An int32 on every device, placed by name (the loop forbids implicit transfers)."""
        return place_array(np.asarray(value, np.int32), NamedSharding(self.mesh, P()))

    def share(self, value: float) -> jax.Array:
        """The share of a budget on every device, likewise."""
        return place_array(np.asarray(value, np.float32), NamedSharding(self.mesh, P()))

    def place_params(self, params: Any) -> Any:
        """Numpy parameters as global arrays on their devices."""
        shardings = jax.tree.map(lambda s: s.sharding, self.abstract_state["params"])
        return jax.tree.map(place_array, params, shardings)


def place_array(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A global array from a value every process holds whole; a transfer by name, also where others are forbidden."""
    with jax.transfer_guard("allow"):
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def choose_mesh(
    run: RunSpec,
    data: Prepared,
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
) -> MeshSpec:
    """The mesh of a run where its config leaves that open: on the devices there are, or on `devices` with `memory`
    bytes each (None: unknown).
    """
    objective = run.make_objective(data)
    whole = Part(optim=run.optim, steps=run.train.steps)
    state = jax.eval_shape(lambda: _fresh(run, objective, objective.parts(whole)))
    if devices is None:
        devices, memory = jax.devices(), meshes.memory_per_device()
    slices = len(meshes.by_slice(devices))
    return meshes.choose(run.mesh, state, len(devices), memory, slices)


def build(run: RunSpec, phase: Phase, mesh: Mesh) -> Program:
    """The programs of one phase of a run on this mesh."""
    objective = run.make_objective(phase.data)
    t = run.train
    arrange = functools.partial(meshes.gather_tables, mesh=mesh)

    spec, first, steps = run.schedule(phase)
    parts = objective.parts(Part(optim=spec, steps=steps, first=first))

    def init() -> State:
        return _fresh(run, objective, parts)

    def eval_step(
        params: Any, carried: Any, batch: Batch, first_row: jax.Array
    ) -> tuple[Sums, dict[str, jax.Array]]:
        # Masks and samples belong to the held-out row, whatever the batch it comes in.
        step = jnp.zeros((), jnp.int32)
        keys = step_keys(EVALUATION_SEED, step)
        rows_B = first_row + jnp.arange(batch["ids"].shape[0])
        batch = objective.prepare(batch | {"rows": rows_B}, keys)
        totals = objective.totals(batch)
        return objective.evaluate(Context(arrange(params), batch, totals, keys, step, carried))

    shapes = jax.eval_shape(init)
    state_sharding = meshes.place(shapes, mesh)
    abstract_state = jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        state_sharding,
    )
    rows, everywhere = NamedSharding(mesh, meshes.ROWS), NamedSharding(mesh, P())
    batch = jax.ShapeDtypeStruct((phase.batch, phase.data.seq_len), jnp.int32, sharding=rows)
    options = DETERMINISTIC if run.mesh.deterministic else None
    train_step = make_train_step(
        objective,
        parts,
        keys=lambda state: step_keys(t.seed, state["step"]),
        accumulation=phase.accumulation,
        arrange=arrange,
    )
    return Program(
        objective=objective,
        mesh=mesh,
        abstract_state=abstract_state,
        abstract_batch=dict.fromkeys(FIELDS, batch),
        init=jax.jit(init, out_shardings=state_sharding, compiler_options=initial.UNTUNED),
        train_step=jax.jit(
            meshes.on_mesh(train_step, mesh),
            donate_argnums=0,
            out_shardings=(state_sharding, everywhere),
            compiler_options=options,
        ),
        eval_step=jax.jit(
            meshes.on_mesh(eval_step, mesh), out_shardings=everywhere, compiler_options=options
        ),
    )


def _fresh(run: RunSpec, objective: Learner, parts: Sequence[Part]) -> State:
    """The state before the first step; with the share of a budget where the run has one."""
    params = objective.init(noise.seed_key(run.train.seed))
    share = {SHARE: jnp.zeros((), jnp.float32)} if run.train.budget else {}
    return init_state(objective, parts, params, **share)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        home = files.user_cache() / "electra_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(home))
    if _LEAST_COMPILE_TIME.upper() not in os.environ:
        # A start compiles thirty small programs, too, none of which takes JAX's whole second.
        jax.config.update(_LEAST_COMPILE_TIME, 0.0)
