#!/usr/bin/env python3
"""The table of docs/planning.md: every recipe of the paper on every named slice, as planned.

    python tools/plan_table.py --rows plans.jsonl --table plans.md

Compiles one row after another, each in a process of its own that is given up after --minutes, and appends it to
--rows; rows that are there are not compiled again, so it can be stopped and started. The table is written anew after
each row. Needs the TPU compiler: pip install -e '.[tpu]'.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from electra_jax import files
from electra_jax.plan import topology
from electra_jax.spec import load_config

RECIPES = ("small", "base", "large")
SLICES = ("v4:2x2x1", "v5e:2x4", "v5e:8x8", "v5p:2x2x1", "v6e:2x4", "v6e:16x16")
GIB = 2**30
HEAD = (
    "recipe | slice | batch | mesh | memory a chip | executed FLOPs / useful | floor | estimated step | tokens/s | MFU "
    "| whole run | chip-hours | CPU time to compile"
)


def row(recipe: str, slice: str, minutes: float) -> dict[str, Any]:
    """Plans one recipe on one slice; a batch that its devices do not divide is rounded up."""
    devices = topology.parse(slice).size
    batch = -(-load_config(recipe).train.batch // devices) * devices
    command = [sys.executable, "-m", "electra_jax", "plan", "--config", recipe]
    command += ["--topology", slice, "--compiles", "1", "--json", f"--config.train.batch={batch}"]
    found: dict[str, Any] = {"recipe": recipe, "slice": slice, "batch": batch}
    start = time.monotonic(), _cpu()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return found | {"failed": f"not compiled within {minutes:g} minutes"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        return found | {"failed": f"failed: {said[-1][:200]}"}
    spent = {"seconds": time.monotonic() - start[0], "cpu_s": _cpu() - start[1]}
    return found | spent | {"plan": json.loads(done.stdout)}


def _cpu() -> float:
    """CPU seconds of the processes that have ended so far; unlike wall time, the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in the order of the recipes and slices, as Markdown; those that are missing say so."""
    by_name = {(r["recipe"], r["slice"]): r for r in rows}
    lines = [f"| {HEAD} |", "|" + "---|" * (HEAD.count("|") + 1)]
    for recipe in RECIPES:
        for slice in SLICES:
            found = by_name.get((recipe, slice), {"batch": "", "failed": "not planned yet"})
            cells = [f"`{recipe}`", f"`{slice}`", f"{found['batch']}", *_cells(found)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(found: dict[str, Any]) -> list[str]:
    empty = HEAD.count("|") + 1 - 3
    if "failed" in found:
        return [found["failed"], *[""] * (empty - 1)]
    plan = found["plan"]
    memory = plan["memory"]
    room = f"{memory['needed_bytes'] / GIB:.2f} of {memory['limit_bytes'] / GIB:.2f} GiB"
    if "time" not in plan:
        return ["", f"does not fit: {room}", *[""] * (empty - 2)]
    time_, run, flops = plan["time"], plan["run"], plan["flops"]
    return [
        " x ".join(str(n) for n in plan["mesh"].values()),
        room,
        f"{flops['executed'] / flops['useful']:.2f}",
        f"{1e3 * time_['floor_s']:.1f} ms",
        f"{1e3 * time_['step_s']:.1f} ms",
        f"{run['tokens_per_s']:,.0f}",
        f"{run['mfu']:.0%}",
        f"{run['hours']:,.1f} h",
        f"{run['chip_hours']:,.0f}",
        f"{found['cpu_s']:.0f} s",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Plans what is missing and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, help="file to append to")
    parser.add_argument("--table", type=Path, required=True, help="file to write")
    parser.add_argument("--minutes", type=float, default=30, help="a row at most (default: 30)")
    options = parser.parse_args(arguments)
    rows = [json.loads(line) for line in _lines(options.rows)]
    there = {(r["recipe"], r["slice"]) for r in rows}
    missing = [(r, s) for r in RECIPES for s in SLICES if (r, s) not in there]
    for recipe, slice in tqdm(missing, desc="plan", unit="row", disable=None):
        rows.append(row(recipe, slice, options.minutes))
        with options.rows.open("a") as out:
            out.write(json.dumps(rows[-1]) + "\n")
        files.write_text(options.table, table(rows))
    files.write_text(options.table, table(rows))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
