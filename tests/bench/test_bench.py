"""The benchmark: the real step, on rows that look like real ones, with figures that add up."""

import json

import jax
import numpy as np
import pytest

from electra_jax import cli
from electra_jax.bench import command, step
from electra_jax.bench.synthetic import SPECIAL, synthetic
from electra_jax.learn import hardware
from electra_jax.spec import UserError, load_config

SMALLEST = ("model.layers=1", "model.width=16", "model.ffn=32", "model.embedding=16")


def test_synthetic_rows_have_the_shape_of_prepared_ones():
    """Catches rows without specials, padding where none is meant, a field or dtype the step does not take."""
    data = synthetic(32, 2000)
    rows = data.source("train").rows(np.array([5, 6, 7]))
    assert set(rows) == {"ids", "types", "docs", "word_starts", "positions"}
    assert all(x.shape == (3, 32) and x.dtype == np.int32 for x in rows.values())
    assert (rows["ids"][:, 0] == SPECIAL.cls).all() and (rows["ids"][:, -1] == SPECIAL.sep).all()
    assert rows["ids"].max() < 2000 and (rows["docs"] == 1).all()
    again = data.source("valid").rows(np.array([5, 6, 7]))
    assert all((again[name] == rows[name]).all() for name in rows)


@pytest.mark.slow
def test_figures_of_the_real_step(capsys, monkeypatch):
    """Catches a benchmark of another batch or length than asked for, rates that do not follow from the
    step time, and JSON that is not JSON."""
    monkeypatch.setattr(hardware, "matmul_peak", lambda dtype: 1e12)
    overrides = [f"--config.{x}" for x in SMALLEST]
    arguments = ["bench", "--config", "tiny", "--seq-len", "16", "--batch", "8", "--rounds", "2"]
    assert cli.main([*arguments, *overrides, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["batch"], figures["seq_len"]) == (8, 16)
    assert figures["tokens_per_s"] == pytest.approx(8 * 16 / figures["step_s"])
    low, high = figures["step_s_quartiles"]
    assert low <= figures["step_s"] <= high
    assert figures["mfu"] is None and 0 < figures["mfu_of_matmul"] < 1
    assert 0 < figures["memory_needed_bytes"] < figures["memory_peak_bytes"]
    assert figures["loader_headroom"] is None
    lines = step.table(figures).splitlines()
    assert any(line.startswith("step time") for line in lines)
    assert f"{jax.device_count()} x" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seq_len": 256}, "model.positions=128"),
        ({"batch": 9}, "do not divide over 8 devices"),
        ({"data": "nowhere"}, "nowhere"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(arguments, said):
    """Catches a shape that fails in the compiler, or quietly measures another one."""
    options = {"seq_len": None, "batch": None, "data": None, "rounds": 1} | arguments
    with pytest.raises(UserError, match=said):
        command.run(load_config("tiny", SMALLEST), **options)
