"""tools/bench_kernels.py in miniature: what it compares is the same computation."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_kernels.py"


@pytest.fixture(scope="module")
def tool():
    """tools/bench_kernels.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_kernels", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_both_sides_compute_the_same(tool, monkeypatch, dropout):
    """Catches a race of two different things: another noise, a bias that one side leaves out, other documents."""
    monkeypatch.setattr(tool, "device_time", lambda call: 1.0)
    shape = tool.Shape(2, 64, 1, 256, 3, 64, 250)
    found = [tool.compare(o) for o in tool.operations(shape, dropout, interpret=True)]
    assert len(found) == (4 if dropout else 6)
    for name, times, errors in found:
        assert errors["XLA"] < 0.02, name
        assert errors["ours"] < 0.01, name
        assert times == {"XLA": 1.0, "ours": 1.0}


def test_another_device_is_refused(tool, monkeypatch, capsys):
    """Catches figures of a CPU in a GPU's table."""
    monkeypatch.setattr("sys.argv", ["bench_kernels.py"])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2
    assert "needs an H100 or H200, but this is cpu" in capsys.readouterr().err
