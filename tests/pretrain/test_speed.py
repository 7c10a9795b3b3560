"""Speeds: what is counted, over which seconds."""

from types import SimpleNamespace

import jax
import pytest

from electra_jax.host.clock import Clock
from electra_jax.learn import hardware
from electra_jax.pretrain import speed
from electra_jax.pretrain.options import run_spec


def test_speeds_between_two_calls(config, prepared, monkeypatch):
    """Catches steps counted from the start of the run each time, evaluation and checkpoints counted
    as training, and rows counted without their length."""
    now = [0.0]
    clock = Clock(lambda: now[0])
    run = run_spec(config().to_dict())
    (phase,) = run.phases(prepared)
    compiled = SimpleNamespace(
        mesh=SimpleNamespace(devices=SimpleNamespace(flat=jax.devices()[:1]))
    )
    monkeypatch.setattr(hardware, "matmul_peak", lambda dtype: 1e9)
    seen = []
    monkeypatch.setattr(
        hardware, "utilisation", lambda rate, *_: seen.append(rate) or {"mfu": None}
    )
    log = speed.Speed(run, phase, compiled, clock, 10)

    def spend(name: str, seconds: float) -> None:
        with clock.time(name):
            now[0] += seconds

    spend("step", 3)
    spend("data", 1)
    spend("evaluate", 100)
    first = log.since_last(14)
    assert first["tokens_per_s"] == 4 * 8 * 32 / 4
    assert first["data_wait"] == 0.25
    assert first["goodput"] == pytest.approx(3 / 104)
    spend("checkpoint", 50)
    spend("step", 2)
    second = log.since_last(20)
    assert second["tokens_per_s"] == 6 * 8 * 32 / 2
    per_step = 3 * 8 * run.make_objective(prepared).flops(32)
    assert second["model_flops_per_s"] == pytest.approx(6 * per_step / 2) == seen[1]
