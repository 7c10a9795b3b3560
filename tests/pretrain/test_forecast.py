"""What a run says it will take: by a measured product before the first step, by its steps after some."""

import dataclasses

import pytest

from electra_jax.learn import hardware
from electra_jax.pretrain import forecast
from electra_jax.pretrain.options import run_spec
from electra_jax.pretrain.speed import useful_flops


@pytest.fixture
def run(config):
    return run_spec(config("train.steps=1000000").to_dict())


def told(run, prepared, seconds, steps=5):
    said, now = [], iter(n * seconds for n in range(100))
    ahead = forecast.Forecast(run, run.phases(prepared), said.append, lambda: next(now))
    for done in range(1, 1 + steps):
        ahead.after(done)
    return said


def test_a_long_run_is_announced_once_with_ways_out(run, prepared):
    """Catches four months that begin without a word, and a line a step."""
    (said,) = told(run, prepared, 10.5)
    assert said.startswith("about 122 days at this speed, 10.5 s a step: 999,997 steps are left")
    for way in ("over a week", "mini", "train.steps", "train.budget=24h"):
        assert way in said


def test_a_budget_ends_what_would_be_long(run, prepared):
    """Catches four months announced for a run that ends in a day."""
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, budget="24h"))
    (said,) = told(run, prepared, 10.5)
    assert said.startswith("train.budget=24h ends the run early") and "over a week" not in said


def test_a_short_run_is_not_talked_about(run, prepared):
    """Catches a line about less than a minute, and a forecast from a moment's steps."""
    short = dataclasses.replace(run, train=dataclasses.replace(run.train, steps=6))
    assert told(short, prepared, 10.5) == []
    assert told(run, prepared, 0.01) == []


def test_before_the_first_step_there_is_a_least(run, prepared, monkeypatch):
    """Catches a first figure that comes only after an hour of compiling and stepping."""
    phases = run.phases(prepared)
    one = useful_flops(run, phases[0])
    monkeypatch.setattr(hardware, "matmul_rate", lambda dtype: one / 2.0)  # two seconds a step
    said = forecast.least(run, phases, 0)
    assert said.startswith("1,000,000 steps take at least 23 days") and "over a week" in said
    assert forecast.least(run, phases, 999_990) is None
