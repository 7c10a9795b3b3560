"""Whether several runs train in one compiled program or one after another."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from electra_jax.finetune import rows
from electra_jax.finetune.loop import Group
from electra_jax.finetune.plan import Plan
from electra_jax.finetune.program import Program
from electra_jax.finetune.record import Run

TOGETHER = "together"
WARM, TIMED = 2, 5  # steps


def of(plan: Plan, together: bool) -> list[Group]:
    """The groups of a command's runs."""
    if together:
        return [Group(TOGETHER, plan.runs)]
    return [Group(run.name, (run,)) for run in plan.runs]


def decide(
    plan: Plan, mesh: Mesh, single: Program, say: Callable[[str], None]
) -> tuple[bool, dict[str, float] | None]:
    """(together, seconds a run and step by way, where they were measured).

    "auto" measures on an accelerator, where several small models fill it better than one; on a CPU,
    whose cores one run fills, it takes one after another. "measure" measures anywhere.
    """
    way = plan.options.train.together
    if len(plan.runs) == 1 or way == "no":
        return False, None
    if way == "yes":
        return True, None
    if way == "auto" and mesh.devices.flat[0].platform == "cpu":
        return False, None
    several = Program(single.spec, mesh, len(plan.runs))
    found = {
        "one after another": _seconds(plan, single, plan.runs[:1]),
        TOGETHER: _seconds(plan, several, plan.runs) / len(plan.runs),
    }
    best = min(found, key=lambda name: found[name])
    told = ", ".join(f"{name} {1000 * s:.1f} ms" for name, s in found.items())
    say(f"{len(plan.runs)} runs, measured for a run and step: {told}; taking {best}")
    return best == TOGETHER, found


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
