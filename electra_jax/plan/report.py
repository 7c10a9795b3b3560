"""A plan as one JSON object, and as text for people."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from electra_jax.data.source import Prepared
from electra_jax.learn.hardware import peak_of
from electra_jax.model.electra import count_parameters
from electra_jax.plan.advise import Trial
from electra_jax.plan.cost import Estimate, Machine, estimate, seconds
from electra_jax.plan.hlo import Source
from electra_jax.plan.prices import Price
from electra_jax.plan.step import Compiled, TooLarge
from electra_jax.plan.weighed import Weighed
from electra_jax.pretrain.options import RunSpec
from electra_jax.pretrain.speed import useful_flops

LISTED = 10  # buffers and operations
GIB = 2**30


def setting(config: str, run: RunSpec, data: Prepared, trial: Trial) -> dict[str, Any]:
    """What was asked: the config, its data and its step."""
    built = trial.outcome.program if isinstance(trial.outcome, Compiled) else None
    dims = run.dimensions(data.vocab_size)
    return {
        "config": config,
        "parameters": built and count_parameters(built.abstract_state["params"], dims),
        "batch": run.train.batch,
        "accumulation": run.train.accumulation,
        "seq_len": data.seq_len,
        "vocab_size": data.vocab_size,
        "steps": run.train.steps,
        "mesh": built and dict(built.mesh.shape),
        "compile_s": trial.outcome.seconds if isinstance(trial.outcome, Compiled) else None,
    }


def memory(trial: Trial, limit: int) -> dict[str, Any]:
    """Bytes on a device by kind, and whether they fit."""
    found: dict[str, Any] = {
        "fits": trial.fits(limit),
        "limit_bytes": limit,
        "needed_bytes": trial.needed,
    }
    if isinstance(trial.outcome, TooLarge):
        return found | {"largest_allocations": list(trial.outcome.largest)}
    kinds = trial.outcome.weighed.memory
    return found | (asdict(kinds) if kinds else {})


def figures(
    run: RunSpec,
    data: Prepared,
    compiled: Compiled,
    machine: Machine,
    devices: int,
    chips: int,
    price: Price | None = None,
    currency: str = "",
) -> dict[str, Any]:
    """FLOPs, exchanges, time and the whole run; all times are estimates."""
    weighed, phase = compiled.weighed, run.phases(data)[0]
    useful = useful_flops(run, phase)
    time = estimate(weighed, machine)
    tokens = run.train.batch * data.seq_len
    hours = run.train.steps * time.step / 3600
    used = useful / (devices * machine.peak * time.step)
    vendors = peak_of(machine.kind) is not None  # else the peak is a matrix product measured here
    return {
        "flops": {
            "useful": useful,
            "executed": weighed.flops * devices,
            "executed_by_kernels": sum(k.flops for k in weighed.kernels) * devices,
        },
        "exchanges": [asdict(e) for e in time.exchanges],
        "time": _time(time),
        "run": {
            "tokens_per_s": tokens / time.step,
            "mfu": used if vendors else None,
            "mfu_of_matmul": None if vendors else used,
            "hours": hours,
            "chip_hours": hours * chips,
            "money": money(hours * chips, price, currency),
        },
        "largest_buffers": largest(weighed)[:LISTED],
        "slowest": slowest(weighed, machine, time)[:LISTED],
        "unknown_loops": list(weighed.unknown_loops),
    }


def _time(time: Estimate) -> dict[str, float]:
    return {
        "floor_s": time.floor,
        "floor_compute_s": time.compute,
        "floor_memory_s": time.memory,
        "floor_interconnect_s": time.interconnect,
        "floor_network_s": time.network,
        "operations_s": time.operations,
        "kernels_s": time.kernels,
        "exposed_exchange_s": time.exposed,
        "step_s": time.step,
        "step_without_kernels_s": time.step_without_kernels,
    }


def largest(weighed: Weighed) -> list[dict[str, Any]]:
    """Temporary buffers by size, each with its padding; those of the same shape and line count as one entry."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for b in weighed.buffers:
        key = b.array, _layers(b.op_name), _text(b.source)
        group = groups.setdefault(
            key, {"array": b.array, "bytes": b.bytes, "count": 0, "op": key[1], "source": key[2]}
        )
        group["count"] += 1
    return sorted(groups.values(), key=lambda g: -g["bytes"])


def _layers(op_name: str) -> str:
    """The name with `layer_*` for every layer."""
    return re.sub(r"layer_\d+", "layer_*", op_name)


def slowest(weighed: Weighed, machine: Machine, time: Estimate) -> list[dict[str, Any]]:
    """Operations by estimated seconds; the same line of the same layer type counts as one, whatever the layer."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for o in weighed.operations:
        name = _layers(o.op_name) or o.opcode
        key = name, _text(o.source)
        group = groups.setdefault(
            key,
            {
                "op": name,
                "source": key[1],
                "kernel": o.kernel,
                "count": 0,
                "cycles": 0,
                "seconds": 0.0,
            },
        )
        group["count"] += o.runs
        group["cycles"] += o.cycles or 0
        group["seconds"] += seconds(o, machine)
    found = sorted(groups.values(), key=lambda g: -g["seconds"])
    whole = time.operations + time.kernels
    return [g | {"share": g["seconds"] / whole if whole else 0.0} for g in found]


def trials(tried: Iterable[Trial], limit: int) -> list[dict[str, Any]]:
    """What was compiled beside the config as it is."""
    return [
        {
            "change": t.change,
            "batch": t.batch,
            "needed_bytes": t.needed,
            "fits": t.fits(limit),
        }
        for t in tried
        if t.change
    ]


def whole(plans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The phases of a run on one topology, and what they come to together; no hours where one does not fit."""
    timed = all("run" in plan for plan in plans)
    return {
        "topology": plans[0]["topology"],
        "config": plans[0]["config"],
        "steps": sum(plan["steps"] for plan in plans),
        "fits": all(plan["memory"]["fits"] for plan in plans),
        "hours": sum(plan["run"]["hours"] for plan in plans) if timed else None,
        "chip_hours": sum(plan["run"]["chip_hours"] for plan in plans) if timed else None,
        "money": _together(plans) if timed else None,
        "phases": list(plans),
    }


def _together(plans: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The money of the phases of a run on one topology."""
    each = [plan["run"]["money"] for plan in plans]
    if None in each:
        return None
    sums = {
        kind: None if None in (m[kind] for m in each) else sum(m[kind] for m in each)
        for kind in ("on_demand", "spot")
    }
    return each[0] | sums


def money(chip_hours: float, price: Price | None, currency: str) -> dict[str, Any] | None:
    """What a run's chip-hours cost; None where the table has no price for the chip."""
    if price is None:
        return None
    return {
        "currency": currency,
        "on_demand": price.money(chip_hours),
        "spot": price.money(chip_hours, spot=True),
        "date": price.date,
        "source": price.source,
    }


def _text(source: Source | None) -> str:
    return str(source) if source else ""


def text(plan: Mapping[str, Any]) -> str:
    """A plan for people; every time in it is an estimate unless it says measured."""
    lines = [_head(plan), *_memory(plan["memory"])]
    if "time" in plan:
        lines += [*_work(plan), *_clock(plan)]
    if plan.get("measured"):
        lines += _measured(plan)
    if "time" in plan:
        lines += _tables(plan)
    lines += [f"  advice       {line}" for line in plan["advice"]]
    return "\n".join(lines)


def whole_text(found: Mapping[str, Any]) -> str:
    """The last lines of the plan of a run in phases."""
    number = len(found["phases"])
    if found["hours"] is None:
        return f"{number} phases: one that does not fit has no time"
    return (
        f"{number} phases: {found['steps']:,} steps in {hours(found['hours'])} = "
        f"{hours(found['chip_hours'], 'chip-hours')} (estimates){_cost(found['money'])}"
    )


def _cost(money: Mapping[str, Any] | None) -> str:
    """What a run costs, after its hours."""
    if money is None:
        return ""
    spot = "" if money["spot"] is None else f", {amount(money['spot'], money['currency'])} on spot"
    return f" = {amount(money['on_demand'], money['currency'])} on demand{spot}"


def _head(plan: Mapping[str, Any]) -> str:
    mesh = plan["mesh"]
    over = f", mesh {' x '.join(f'{k}={v}' for k, v in mesh.items())}" if mesh else ""
    size = f"{plan['parameters']:,} parameters; " if plan["parameters"] else ""
    took = f"; compiled in {plan['compile_s']:.0f} s" if plan["compile_s"] else ""
    parts = f" in {plan['accumulation']} parts" if plan["accumulation"] > 1 else ""
    chips = f"{plan['chips']} chips, " if plan["chips"] else ""
    phase = f", phase {plan['phase']} of {plan['phases']}," if plan["phases"] > 1 else ""
    slices = f" in {plan['slices']} slices" if plan["slices"] > 1 else ""
    where = f"{plan['topology']}{plan['also']}: {chips}{plan['devices']} devices ({plan['device']}){slices}"
    return (
        f"{plan['config']}{phase} on {where}\n"
        f"  step         {size}{plan['batch']:,} rows of {plan['seq_len']} tokens{parts}{over}{took}"
    )


def _memory(memory: Mapping[str, Any]) -> list[str]:
    needed, limit = size(memory["needed_bytes"]), size(memory["limit_bytes"])
    verdict = "fits" if memory["fits"] else "DOES NOT FIT"
    lines = [f"  memory       {verdict}: {needed} of {limit} a device"]
    if "arguments" in memory:
        kinds = ("arguments", "temporaries", "outputs", "aliased", "code")
        said = ", ".join(f"{kind} {size(memory[kind])}" for kind in kinds)
        lines.append(f"               {said} (aliased: outputs that take the arguments' place)")
    for line in memory.get("largest_allocations", [])[:LISTED]:
        lines.append(f"               {line}")
    return lines


def _work(plan: Mapping[str, Any]) -> list[str]:
    flops = plan["flops"]
    lines = [
        f"  FLOPs        useful {flops['useful']:.3g} a step; executed {flops['executed']:.3g}, "
        f"{flops['executed'] / flops['useful']:.2f} times that"
    ]
    for i, e in enumerate(plan["exchanges"]):
        head = "  exchange     " if i == 0 else " " * 15
        exposed = e["exposed_bytes"] / e["bytes"] if e["bytes"] else 0
        lines.append(
            f"{head}{e['kind']}: {size(e['bytes'])} in {e['count']} runs, {1 - exposed:.0%} of it overlapped, "
            f"{ms(e['exposed_seconds'])} exposed"
        )
    return lines


def _clock(plan: Mapping[str, Any]) -> list[str]:
    t, run = plan["time"], plan["run"]
    network = f", network {ms(t['floor_network_s'])}" if t["floor_network_s"] else ""
    lines = [
        f"  floor        {ms(t['floor_s'])} a step by roofline: compute {ms(t['floor_compute_s'])}, memory "
        f"{ms(t['floor_memory_s'])}, interconnect {ms(t['floor_interconnect_s'])}{network}",
        f"  estimate     {ms(t['step_s'])} a step: operations {ms(t['operations_s'])}, hand-written kernels "
        f"{ms(t['kernels_s'])}, exposed exchange {ms(t['exposed_exchange_s'])}",
    ]
    if t["kernels_s"]:
        lines.append(f"               without kernels {ms(t['step_without_kernels_s'])}")
    if plan["unknown_loops"]:
        lines.append(
            f"               loops of unknown length, counted once: {', '.join(plan['unknown_loops'])}"
        )
    mfu = (
        f"MFU {run['mfu']:.1%}"
        if run["mfu"] is not None
        else f"{run['mfu_of_matmul']:.1%} of a measured matmul"
    )
    whole = "whole run " if plan["phases"] == 1 else "this phase"
    lines.append(
        f"  {whole}   {run['tokens_per_s']:,.0f} tokens/s, {mfu}, {plan['steps']:,} steps in "
        f"{hours(run['hours'])} = {hours(run['chip_hours'], 'chip-hours')} (estimates){_cost(run['money'])}"
    )
    if money := run["money"]:
        lines.append(f"               prices of {money['source']}, {money['date']}")
    return lines


def _measured(plan: Mapping[str, Any]) -> list[str]:
    measured = plan["measured"]
    lines = [
        f"  measured     {ms(measured['step_s'])} a step (median of {measured['steps']}), "
        f"{measured['step_s'] / plan['time']['step_s']:.2f} times the estimate"
    ]
    if measured["peak_bytes"] is not None:
        needed = plan["memory"]["needed_bytes"] * plan["devices"]
        lines.append(
            f"               memory rose by {size(measured['peak_bytes'])}; planned {size(needed)} over all devices"
        )
    return lines


def _tables(plan: Mapping[str, Any]) -> list[str]:
    lines = ["  largest temporary buffers"]
    for b in plan["largest_buffers"]:
        lines.append(
            f"    {size(b['bytes']):>10} {b['count']:5} x  {b['array']:24} {b['source']}  {_end(b['op'])}"
        )
    lines.append("  slowest operations")
    for o in plan["slowest"]:
        kernel = " (kernel)" if o["kernel"] else ""
        lines.append(
            f"    {ms(o['seconds']):>10} {o['share']:6.1%} {o['count']:5} x  {o['source']}  {_end(o['op'])}{kernel}"
        )
    return lines


def size(bytes: int) -> str:
    """Bytes for people."""
    return f"{bytes / GIB:.2f} GiB" if bytes >= GIB else f"{bytes / 2**20:.1f} MiB"


def _end(name: str, most: int = 60) -> str:
    return name if len(name) <= most else "..." + name[-most:]


def ms(seconds: float) -> str:
    """Seconds of a step for people."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def hours(hours: float, unit: str = "h") -> str:
    """Hours, or chip-hours, for people."""
    return (f"{hours:,.1f} {unit}" if hours < 100 else f"{hours:,.0f} {unit}").rstrip()


def amount(money: float, currency: str) -> str:
    """An amount of money for people."""
    return f"{money:,.2f} {currency}" if money < 100 else f"{money:,.0f} {currency}"
