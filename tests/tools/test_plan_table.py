"""tools/plan_table.py on made-up plans: what is compiled, what is passed over, and what the table says of each row."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "plan_table.py"
PLAN = {
    "memory": {"needed_bytes": 2**30, "limit_bytes": 2**34},
    "mesh": {"data": 4, "fsdp": 2},
    "flops": {"useful": 1e12, "executed": 1.25e12},
    "time": {"floor_s": 0.01, "step_s": 0.02},
    "run": {"tokens_per_s": 12345.6, "mfu": 0.4, "hours": 100.0, "chip_hours": 800.0},
    "compile_s": 61.0,
}


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("plan_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_made_once_and_say_what_came_of_them(tool, tmp_path, monkeypatch):
    """Catches a sweep that starts over, a batch the chips do not divide, and a failure that looks like a plan."""
    asked = []

    def run(command, timeout, **_):
        asked.append(command)
        recipe, slice = command[5:8:2]
        if recipe == "large":
            raise subprocess.TimeoutExpired(command, timeout)
        if slice == "v4:2x2x1":
            return subprocess.CompletedProcess(command, 2, "", "error: no")
        plan = {k: v for k, v in PLAN.items() if k != "time" or slice != "v5e:8x8"}
        return subprocess.CompletedProcess(command, 0, json.dumps(plan), "")

    monkeypatch.setattr(tool.subprocess, "run", run)
    rows, table = tmp_path / "rows.jsonl", tmp_path / "table.md"
    for _ in range(2):
        tool.main(["--rows", str(rows), "--table", str(table)])
    assert len(asked) == len(tool.RECIPES) * len(tool.SLICES) == len(rows.read_text().splitlines())
    assert [c[-1] for c in asked if c[5:8:2] == ["small", "v6e:16x16"]] == [
        "--config.train.batch=256"
    ]
    found = {tuple(line.split(" | ")[:2]): line for line in table.read_text().splitlines()[2:]}
    assert "| not compiled within 30 minutes |" in found["| `large`", "`v5e:2x4`"]
    assert "| failed: error: no |" in found["| `base`", "`v4:2x2x1`"]
    assert "does not fit: 1.00 of 16.00 GiB" in found["| `base`", "`v5e:8x8`"]
    row = found["| `base`", "`v5e:2x4`"]
    assert "| 256 | 4 x 2 | 1.00 of 16.00 GiB | 1.25 | 10.0 ms | 20.0 ms | 12,346 | 40% |" in row
    assert len({line.count("|") for line in table.read_text().splitlines()}) == 1


def test_a_row_that_is_missing_says_so(tool):
    """Catches a table that hides what was never planned."""
    lines = tool.table([]).splitlines()
    assert len(lines) == 2 + 18 and all("not planned yet" in line for line in lines[2:])
