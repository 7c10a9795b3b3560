"""tools/tpu_cycles.py on a compiled program in miniature: its table adds up to its total."""

import importlib.util
from pathlib import Path

import pytest

from electra_jax.plan import cost, topology
from electra_jax.plan.weighed import weigh_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("tpu_cycles", ROOT / "tools" / "tpu_cycles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lines_add_up_to_the_step(tool):
    """Catches loops counted once, a kernel left out or counted twice, and lines that the shortened table loses."""
    weighed = weigh_text((ROOT / "tests" / "plan" / "program.hlo").read_text())
    machine = cost.tpu(topology.parse("v5e:2x2"))
    found = tool.cycles(weighed, machine)
    assert found["kernels"] > 0
    assert found["total"] == sum(found["lines"].values())
    assert abs(found["total"] - weighed.cycles - found["kernels"]) < len(found["lines"])
    for most in (1, 2, 100):
        rows = [line.split() for line in tool.text(found, most).splitlines()[2:]]
        assert abs(sum(float(row[0]) for row in rows) - found["total"] / 1e6) < 0.01 * len(rows)


def test_what_is_no_option_of_the_tool_or_the_config_is_refused(tool, capsys):
    """Catches a mistyped option that is taken for an override, and silently ignored."""
    with pytest.raises(SystemExit):
        tool.main(["--config", "small", "--batch", "8", "--seq-len", "128", "--no-kernel-at-all"])
    assert "--no-kernel-at-all" in capsys.readouterr().err
