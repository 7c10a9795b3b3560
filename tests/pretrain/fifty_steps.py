"""Trains the tiny model for fifty steps on some meshes, in one process or several, and keeps all that was random.

A program of its own, so that several can be started: python fifty_steps.py '{"data": ..., ...}'. Process 0 writes
one .npz a mesh: batches, masks, samples and dropout bits of every step, and the losses.
"""

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from electra_jax.data.loader import Loader
from electra_jax.data.source import open_prepared
from electra_jax.learn import mesh as meshes
from electra_jax.objective.electra import ElectraObjective
from electra_jax.ops import noise
from electra_jax.pretrain import program
from electra_jax.pretrain.options import RunSpec, run_spec
from electra_jax.spec import load_config

STEPS = 50


class Recorded(ElectraObjective):
    """The objective, whose sums carry what it saw and drew; nothing else is changed."""

    def _forward(self, context):
        sums, tokens = super()._forward(context)
        batch = context.batch
        dropout = noise.for_rows(context.keys["dropout"], batch["rows"])
        seen = {
            "ids": batch["ids"],
            "masked": batch["masked"],
            "sampled": tokens["ids"],
            "dropout": noise.bits(dropout, jnp.arange(8, dtype=jnp.uint32)),
        }
        return sums | {f"seen/{name}": x for name, x in seen.items()}, tokens


@dataclass(frozen=True)
class Member:
    """A CPU device, and the slice that it is said to be of."""

    device: jax.Device
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"


def mesh(data: int, fsdp: int, slices: int) -> Mesh:
    """The mesh that training would have, were these devices dealt to so many slices in turn."""
    members = [Member(d, i % slices) for i, d in enumerate(jax.devices()[: data * fsdp])]
    grid = meshes.arrange(meshes.by_slice(members), data, fsdp)
    devices = np.vectorize(lambda member: member.device, otypes=[object])(grid)
    return Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def train(run: RunSpec, data, mesh: Mesh) -> dict[str, np.ndarray]:
    """Arrays [STEPS, ...] by name."""
    phase = run.phases(data)[0]
    compiled = program.build(run, phase, mesh)
    train_step, state = compiled.compile_train_step(), compiled.init()
    rows_of_step = functools.partial(phase.rows, seed=run.train.seed)
    kept: dict[str, list[np.ndarray]] = {}
    with Loader(data.source("train"), rows_of_step, compiled.batch_sharding, 0, STEPS) as batches:
        for _, batch in batches:
            state, sums = train_step(state, batch)
            for name, x in jax.device_get(sums).items():
                kept.setdefault(name, []).append(x)
    return {name: np.stack(steps) for name, steps in kept.items()}


def main() -> None:
    """Everything is said in one JSON argument."""
    told = json.loads(sys.argv[1])
    if "coordinator" in told:
        jax.distributed.initialize(told["coordinator"], told["processes"], told["process"])
    data = open_prepared(told["data"])
    make = RunSpec.make_objective

    def recorded(self: RunSpec, data) -> Recorded:
        o = make(self, data)
        return Recorded(o.options, o.dims, o.special, o.seq_len)

    RunSpec.make_objective = recorded
    for name, (rows, fsdp, dtype, slices) in told["meshes"].items():
        overrides = [*told["overrides"], f"data.path={told['data']}", f"model.dtype={dtype}"]
        run = run_spec(load_config("tiny", overrides).to_dict())
        found = train(run, data, mesh(rows, fsdp, slices))
        if jax.process_index() == 0:
            np.savez(Path(told["output"]) / f"{name}.npz", **found)


if __name__ == "__main__":
    main()
