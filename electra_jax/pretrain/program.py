"""The compiled programs of a run: what the loop, the tests, the benchmark and the planner all execute."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.data.source import Prepared
from electra_jax.host import heap
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.learn import program as programs
from electra_jax.learn.average import Averaged
from electra_jax.learn.learner import Batch, Context, Learner, Sums
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.parts import Part
from electra_jax.learn.step import SHARE, State, init_state, make_train_step, step_keys
from electra_jax.model import initial
from electra_jax.objective.protocol import Objective
from electra_jax.ops import noise
from electra_jax.pretrain.options import Phase, RunSpec
from electra_jax.spec import UserError

EVALUATION_SEED = 0  # of the fixed masks and samples of held-out evaluation, the same in every run
FIELDS = ("ids", "types", "docs", "word_starts", "positions")

EvalStep = Callable[[Any, Any, Batch, jax.Array], tuple[Sums, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Program:
    """The jitted functions of a run and the placement of what they take; nothing is compiled before its first use."""

    objective: Objective
    learner: Learner  # the objective, or what carries something beside it
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
        return programs.place_array(np.asarray(value, np.int32), NamedSharding(self.mesh, P()))

    def share(self, value: float) -> jax.Array:
        """The share of a budget on every device, likewise."""
        return programs.place_array(np.asarray(value, np.float32), NamedSharding(self.mesh, P()))

    def place(self, name: str, values: Mapping[str, Any]) -> Any:
        """A part of the state ("params", "carried") from numpy arrays by path, as global arrays on their devices.

        Raises UserError that lists every path, shape and dtype in which the values differ from the state's.
        """
        expected = self.abstract_state[name]
        wrong = arrays.mismatches(
            arrays.describe(expected), arrays.describe(dict(values)), "the values"
        )
        if wrong:
            listing = "".join(f"\n  {line}" for line in wrong)
            raise UserError(f"these {name} do not fit the model:{listing}")

        def placed(path: tuple[Any, ...], struct: jax.ShapeDtypeStruct) -> jax.Array:
            return programs.place_array(values[arrays.path_name(path)], struct.sharding)

        return jax.tree_util.tree_map_with_path(placed, expected)

    def place_params(self, params: Any) -> Any:
        """Numpy parameters as global arrays on their devices."""
        return programs.place(params, programs.shardings(self.abstract_state["params"]))

    def carried(self, params: Any) -> Any:
        """What is carried beside these parameters before the first step, on its devices."""
        where = programs.shardings(self.abstract_state["carried"])
        return jax.jit(self.learner.carried, out_shardings=where)(params)


def choose_mesh(
    run: RunSpec,
    data: Prepared,
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
) -> MeshSpec:
    """The mesh of a run where its config leaves that open: on the devices there are, or on `devices` with `memory`
    bytes each (None: unknown).
    """
    learner = _learner(run, run.make_objective(data))
    whole = Part(optim=run.optim, steps=run.train.steps)
    state = jax.eval_shape(lambda: _fresh(run, learner, learner.parts(whole)))
    if devices is None:
        devices, memory = jax.devices(), meshes.memory_per_device()
    slices = len(meshes.by_slice(devices))
    return meshes.choose(run.mesh, state, len(devices), memory, slices)


def build(run: RunSpec, phase: Phase, mesh: Mesh) -> Program:
    """The programs of one phase of a run on this mesh."""
    objective = run.make_objective(phase.data)
    learner = _learner(run, objective)
    t = run.train
    arrange = functools.partial(meshes.gather_tables, mesh=mesh)

    spec, first, steps = run.schedule(phase)
    parts = learner.parts(Part(optim=spec, steps=steps, first=first))

    def init() -> State:
        return _fresh(run, learner, parts)

    def eval_step(
        params: Any, carried: Any, batch: Batch, first_row: jax.Array
    ) -> tuple[Sums, dict[str, jax.Array]]:
        # Masks and samples belong to the held-out row, whatever the batch it comes in.
        step = jnp.zeros((), jnp.int32)
        keys = step_keys(EVALUATION_SEED, step)
        rows_B = first_row + jnp.arange(batch["ids"].shape[0])
        batch = learner.prepare(batch | {"rows": rows_B}, keys)
        totals = learner.totals(batch)
        return learner.evaluate(Context(arrange(params), batch, totals, keys, step, carried))

    abstract_state = programs.abstract(jax.eval_shape(init), mesh)
    rows = programs.rows(mesh)
    batch = jax.ShapeDtypeStruct((phase.batch, phase.data.seq_len), jnp.int32, sharding=rows)
    options = programs.DETERMINISTIC if run.mesh.deterministic else None
    train_step = make_train_step(
        learner,
        parts,
        keys=lambda state: step_keys(t.seed, state["step"]),
        accumulation=phase.accumulation,
        arrange=arrange,
    )
    return Program(
        objective=objective,
        learner=learner,
        mesh=mesh,
        abstract_state=abstract_state,
        abstract_batch=dict.fromkeys(FIELDS, batch),
        init=jax.jit(
            init,
            out_shardings=programs.shardings(abstract_state),
            compiler_options=initial.UNTUNED,
        ),
        train_step=programs.jit_step(train_step, mesh, abstract_state, options=options),
        eval_step=jax.jit(
            meshes.on_mesh(eval_step, mesh),
            out_shardings=NamedSharding(mesh, P()),
            compiler_options=options,
        ),
    )


def _learner(run: RunSpec, objective: Objective) -> Any:
    """What is trained: the objective, with an average of its weights where the run has one."""
    return Averaged(objective, run.train.average) if run.train.average else objective


def _fresh(run: RunSpec, objective: Learner, parts: Sequence[Part]) -> State:
    """The state before the first step; with the share of a budget where the run has one."""
    params = objective.init(noise.seed_key(run.train.seed))
    share = {SHARE: jnp.zeros((), jnp.float32)} if run.train.budget else {}
    return init_state(objective, parts, params, **share)
