"""tools/bench_kernels.py in miniature: what it compares is the same computation."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

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
    timed = []  # the outputs of what is timed: values and gradients
    monkeypatch.setattr(tool, "device_time", lambda call: timed.append(call()) or float(len(timed)))
    shape = tool.Shape(2, 64, 1, 256, 3, 64, 250)
    found = [tool.compare(o) for o in tool.operations(shape, dropout, interpret=True)]
    assert len(found) == (4 if dropout else 6)
    for n, (name, times, errors) in enumerate(found):
        assert errors["XLA"] < 0.02, name
        assert errors["ours"] < 0.01, name
        assert times == {"XLA": 2 * n + 1.0, "ours": 2 * n + 2.0}
        theirs, ours = timed[2 * n : 2 * n + 2]
        assert [x.shape for x in theirs] == [x.shape for x in ours] and len(ours) > 1, name


def test_device_time_counts_what_streams_were_busy(tool, monkeypatch):
    """Catches the time of the host or of the whole trace, and of all calls in place of one."""
    events = [SimpleNamespace(duration_ns=4500), SimpleNamespace(duration_ns=1500)]
    lines = [SimpleNamespace(name=x, events=events) for x in ("Stream #7", "XLA Ops", "Stream #9")]
    planes = [SimpleNamespace(name=x, lines=lines) for x in ("/device:GPU:0", "/host:CPU")]
    profile = SimpleNamespace(from_file=lambda _: SimpleNamespace(planes=planes))
    monkeypatch.setattr(tool.jax.profiler, "ProfileData", profile)
    calls = []
    assert tool.device_time(lambda: calls.append(0)) == pytest.approx(12.0 / tool.CALLS)
    assert len(calls) == tool.CALLS


def test_another_device_is_refused(tool, monkeypatch, capsys):
    """Catches figures of a CPU in a GPU's table."""
    monkeypatch.setattr("sys.argv", ["bench_kernels.py"])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2
    assert "needs an H100 or H200, but this is cpu" in capsys.readouterr().err
