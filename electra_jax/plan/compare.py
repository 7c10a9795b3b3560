"""Several topologies side by side: which one a run fits, how long it takes there, and what that costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.plan import report

HEAD = (
    "topology", "devices", "mesh", "memory a device", "step", "between slices", "tokens/s", "MFU", "whole run",
    "chip-hours", "on demand", "spot",
)  # fmt: skip


def table(plans: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """One row a topology, of the plans of its phases, as text in columns; every time is an estimate."""
    rows = [HEAD, *(_row(phases) for phases in plans)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in ("", *lines))


def _row(phases: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    first = phases[0]
    tight = max(phases, key=lambda plan: plan["memory"]["needed_bytes"])["memory"]
    room = f"{report.size(tight['needed_bytes'])} of {report.size(tight['limit_bytes'])}"
    mesh = " x ".join(str(n) for n in first["mesh"].values()) if first["mesh"] else ""
    head = (first["topology"], str(first["devices"]), mesh)
    whole = report.whole(phases)
    money = whole["money"] or {}
    if not whole["fits"]:
        return (*head, f"{room}: no", *[""] * (len(HEAD) - len(head) - 1))
    seconds = sum(plan["steps"] * plan["time"]["step_s"] for plan in phases)
    tokens = sum(plan["steps"] * plan["batch"] * plan["seq_len"] for plan in phases)
    waits = sum(plan["steps"] * _waits(plan) for plan in phases) / seconds
    used = [plan["run"]["mfu"] for plan in phases]
    weights = [plan["steps"] * plan["time"]["step_s"] / seconds for plan in phases]
    mfu = None if None in used else sum(u * w for u, w in zip(used, weights, strict=True))
    return (
        *head,
        room,
        report.ms(seconds / sum(plan["steps"] for plan in phases)),
        f"{waits:.0%}" if first["slices"] > 1 else "",
        f"{tokens / seconds:,.0f}",
        "" if mfu is None else f"{mfu:.0%}",
        report.hours(whole["hours"]),
        report.hours(whole["chip_hours"], ""),
        *(
            "" if money.get(kind) is None else report.amount(money[kind], money["currency"])
            for kind in ("on_demand", "spot")
        ),
    )


def _waits(plan: Mapping[str, Any]) -> float:
    """Seconds of a step that wait for other slices."""
    between = (e for e in plan["exchanges"] if e["between_slices"])
    return sum(e["exposed_seconds"] for e in between)
