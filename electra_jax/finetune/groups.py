"""Whether several runs train in one compiled program or one after another."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.finetune import rows
from electra_jax.finetune.loop import Group
from electra_jax.finetune.plan import Plan
from electra_jax.finetune.program import Program
from electra_jax.finetune.record import Run
from electra_jax.host import processes
from electra_jax.model import flops

TOGETHER = "together"
WARM, TIMED = 2, 5  # steps
# FLOPs of a run's step below which a CPU has time to spare between its operations: measured, in one program
# 1.25 times as fast at 2e9 and as fast at 5e9 (docs/finetuning.md).
SMALL_STEP = 3e9


def of(plan: Plan, together: bool) -> list[Group]:
    """The groups of a command's runs."""
    if together:
        return [Group(TOGETHER, plan.runs)]
    return [Group(run.name, (run,)) for run in plan.runs]


def decide(
    plan: Plan, mesh: Mesh, single: Program, say: Callable[[str], None]
) -> tuple[bool, dict[str, float] | None]:
    """(together, seconds a run and step by way, where they were measured).

    "auto" measures on an accelerator, where several small models fill it better than one. On a CPU
    it takes one program for steps below SMALL_STEP, and otherwise one after another, as the cores
    are full. "measure" measures anywhere.
    """
    way = plan.options.train.together
    if len(plan.runs) == 1 or way == "no":
        return False, None
    if way == "yes":
        return True, None
    if way == "auto" and mesh.devices.flat[0].platform == "cpu":
        return step_flops(plan) < SMALL_STEP, None
    several = Program(single.spec, mesh, len(plan.runs), single.notice)
    found = {
        "one after another": _seconds(plan, single, plan.runs[:1]),
        TOGETHER: _seconds(plan, several, plan.runs) / len(plan.runs),
    }
    best = processes.by_first(
        "choosing one program or several", lambda: min(found, key=lambda name: found[name])
    )
    told = ", ".join(f"{name} {1000 * s:.1f} ms" for name, s in found.items())
    say(f"{len(plan.runs)} runs, measured for a run and step: {told}; taking {best}")
    return best == TOGETHER, found


def step_flops(plan: Plan) -> float:
    """FLOPs of the encoder in a step of one run, at the training examples' mean length."""
    length = float(np.mean(np.concatenate([d.train.lengths for d in plan.data])))
    row = flops.encoder(plan.start.dims.discriminator, round(length))
    return flops.PASSES * row * plan.options.train.batch


def _seconds(plan: Plan, program: Program, runs: Sequence[Run]) -> float:
    """Seconds of a step on the longest rows, the median of a few after compilation."""
    data, order = plan.data[0], plan.schedule.orders[0]
    length = order.buckets[-1]
    one = data.train.batch(order.rows(0, 0), length)
    batch: dict[str, Any] = rows.stack([one] * len(runs)) if program.runs else one
    state = program.init(plan.start.tree, [r.seed for r in runs], [r.peak_lr for r in runs])
    took = []
    for _ in range(WARM + TIMED):
        begin = time.perf_counter()
        state, told = program.step(data.task.name, state, batch)
        jax.block_until_ready(told)
        took.append(time.perf_counter() - begin)
    return sorted(took[WARM:])[TIMED // 2]
