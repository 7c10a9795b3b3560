"""Several runs in one program or one after another: what decides."""

from types import SimpleNamespace

import pytest

from electra_jax.finetune import groups

CPU = SimpleNamespace(devices=SimpleNamespace(flat=[SimpleNamespace(platform="cpu")]))
GPU = SimpleNamespace(devices=SimpleNamespace(flat=[SimpleNamespace(platform="gpu")]))


def plan(way: str, runs: int = 3) -> SimpleNamespace:
    """As much of a plan as is asked."""
    options = SimpleNamespace(train=SimpleNamespace(together=way))
    return SimpleNamespace(options=options, runs=tuple(f"run{n}" for n in range(runs)))


@pytest.fixture
def timed(monkeypatch):
    """Seconds of a step: 0.3 of a run alone, and the given number of all together."""
    monkeypatch.setattr(groups, "Program", lambda spec, mesh, runs, notice: runs)

    def make(together: float) -> list[str]:
        def seconds(plan, program, runs):
            return 0.3 if len(runs) == 1 else together

        monkeypatch.setattr(groups, "_seconds", seconds)
        return []

    return make


@pytest.mark.parametrize(("together", "expected"), [(0.6, True), (1.2, False)])
@pytest.mark.parametrize(("way", "mesh"), [("auto", GPU), ("measure", CPU)])
def test_what_is_measured_is_a_run_and_step(timed, way, mesh, together, expected):
    """Catches three runs' step compared with one run's, and the slower way taken."""
    said = timed(together)
    single = SimpleNamespace(spec=None, notice=None)
    chosen, found = groups.decide(plan(way), mesh, single, said.append)
    assert chosen is expected
    assert found == {"one after another": 0.3, groups.TOGETHER: pytest.approx(together / 3)}
    assert said[0].endswith(f"taking {groups.TOGETHER if expected else 'one after another'}")


@pytest.mark.parametrize(("flops", "expected"), [(1e9, True), (1e10, False)])
def test_a_cpu_decides_by_the_size_of_a_step(monkeypatch, flops, expected):
    """Catches `auto`, the default, that measures for minutes on a CPU or packs large steps into one program."""
    monkeypatch.setattr(groups, "step_flops", lambda plan: flops)
    assert groups.decide(plan("auto"), CPU, None, pytest.fail) == (expected, None)


def test_what_is_asked_is_done():
    """Catches a measurement where the user or a single run leaves nothing to decide."""
    for way, runs, expected in (("no", 3, False), ("yes", 3, True), ("measure", 1, False)):
        assert groups.decide(plan(way, runs), GPU, None, pytest.fail) == (expected, None)
    runs = tuple(SimpleNamespace(name=f"run{n}") for n in range(3))
    split = groups.of(SimpleNamespace(runs=runs), together=False)
    assert [group.name for group in split] == ["run0", "run1", "run2"]
    (one,) = groups.of(SimpleNamespace(runs=runs), together=True)
    assert one.name == groups.TOGETHER and one.runs == runs
