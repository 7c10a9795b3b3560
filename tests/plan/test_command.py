"""The command: a plan for this machine beside measured steps, and one for a TPU where its compiler is installed."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from unittest import mock

import jax
import pytest

from electra_jax import cli
from electra_jax.learn.arrays import flatten
from electra_jax.plan import command, local, prices, report, target
from electra_jax.plan.step import compile_step, settle
from electra_jax.plan.stretches import Stretch, described
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

SMALL = [
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.ffn=32",
    "--config.model.embedding=12",
]


@pytest.fixture(scope="module")
def weighed():
    """The plan of a very small step on two of the devices of the tests, and its step, stretch and target."""
    run = run_spec(
        load_config("tiny", [flag.removeprefix("--config.") for flag in SMALL]).to_dict()
    )
    data = described("tiny", "", None, 500)
    here = target.aim("cpu", run)
    two = dataclasses.replace(here, devices=here.devices[:2], chips=1)  # as on tpu7x
    run = settle(run, data, two.devices, None)
    made = []

    def keep(*asked):
        made.append(compile_step(*asked))
        return made[-1]

    with mock.patch.object(command, "compile_step", keep):
        plan = command.weigh_on("tiny", Stretch(run, data), two, compiles=4, prices=prices.read())
    return plan, made[0], Stretch(run, data), two


@pytest.fixture(scope="module")
def planned(weighed):
    """The plan alone."""
    return weighed[0]


def test_a_plan_stands_beside_a_measured_run(planned):
    """Catches a plan of the local machine without the steps that show what it is worth."""
    assert planned["topology"] == "cpu" and planned["devices"] == 2
    assert planned["measured"]["step_s"] > 0 and planned["measured"]["steps"] >= 3
    assert planned["time"]["step_s"] >= planned["time"]["floor_s"] > 0
    assert planned["memory"]["fits"] and planned["memory"]["temporaries"] > 0
    assert planned["run"]["chip_hours"] == planned["run"]["hours"] > 0


def test_the_step_is_the_real_one(planned):
    """Catches a plan of another program than training runs: its products are those the model's definition needs."""
    assert 1 <= planned["flops"]["executed"] / planned["flops"]["useful"] < 1.3
    (exchange,) = [e for e in planned["exchanges"] if e["kind"] == "all-reduce"]
    assert exchange["bytes"] >= 4 * planned["parameters"]
    assert any("electra_jax/" in o["source"] for o in planned["slowest"])


@pytest.mark.parametrize("how", ["told", "found out"])
def test_a_step_that_this_machine_cannot_hold_is_not_run(monkeypatch, how):
    """Catches a plan that asks for 171 GB to measure a step, and ends in the allocator's traceback."""

    def refuse(*_):
        assert how == "found out"
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(local, "free_memory", lambda: 199 if how == "told" else None)
    monkeypatch.setattr(local, "_measure", refuse)
    step = mock.Mock()
    step.weighed.memory.total, step.program.mesh.size = 100, 2
    assert local.measure(step, mock.Mock()) is None


def test_a_plan_without_measured_steps_is_whole(weighed, monkeypatch):
    """Catches a plan that stops where no step can be measured, and one that does not say why none was."""
    _, step, stretch, two = weighed
    monkeypatch.setattr(command, "compile_step", lambda *_: step)
    monkeypatch.setattr(local, "measure", lambda *_: None)
    found = command.weigh_on("tiny", stretch, two, 4, prices.read())
    assert found["measured"] is None and found["time"]["step_s"] > 0
    assert "no step was run" in report.text(found)


def test_text_is_for_people(planned):
    """Catches a report that does not print or leaves out what the object holds, and an object that is no JSON."""
    said = report.text(json.loads(json.dumps(planned)))
    for word in (
        "fits",
        "floor",
        "estimate",
        "measured",
        "matmul",
        "chip-hours",
        "slowest",
        "largest",
    ):
        assert word in said


def test_mistakes_cost_nothing(capsys, monkeypatch):
    """Catches a compilation that starts before the last topology or option was looked at."""
    monkeypatch.setattr("electra_jax.plan.command.compile_step", lambda *a: pytest.fail("compiled"))
    for more in (["--topology", "v5x-8"], ["--config.train.batch=7"], ["--config.mesh.data=3"]):
        arguments = ["plan", "--config", "tiny", "--topology", "cpu", *more]
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


def exchanged() -> float:
    """The formula of docs/scaling.md for a TPU and copied parameters: bytes of the gradients' all-reduce."""
    run = run_spec(load_config("tiny", [f.removeprefix("--config.") for f in SMALL]).to_dict())
    objective = run.make_objective(described("tiny", "", None, 500))
    params = flatten(jax.eval_shape(objective.init, jax.random.key(0)))
    assert run.model.dtype == "float32"
    return sum(
        4 * leaf.size * (2 if name.endswith("/word") else 1) for name, leaf in params.items()
    )


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed (pip install 'electra_jax[tpu]')",
)
def test_a_step_compiled_for_a_tpu(tmp_path):
    """Catches a step that a TPU's compiler does not take, splits otherwise than planned, or that we cannot read."""
    typed = [sys.executable, "-m", "electra_jax", "plan", "--config", "tiny", *SMALL]
    more = ["--topology", "v5e-8", "--vocab-size", "500", "--compiles", "1", "--json"]
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [*typed, *more],
        env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["chips"], plan["mesh"]) == (8, {"data": 8, "fsdp": 1})
    memory = plan["memory"]
    assert memory["fits"] and memory["aliased"] > 0.9 * memory["outputs"]
    assert (
        memory["arguments"] >= 3 * 4 * plan["parameters"]
    )  # parameters and two moments, on every chip
    (reduce,) = [e for e in plan["exchanges"] if e["kind"] == "all-reduce"]
    assert reduce["bytes"] == pytest.approx(exchanged(), rel=0.1)
    assert plan["time"]["operations_s"] > 0 and plan["unknown_loops"] == []
    assert 1 <= plan["flops"]["executed"] / plan["flops"]["useful"] < 1.3
    assert any("electra_jax/" in o["source"] for o in plan["slowest"])
