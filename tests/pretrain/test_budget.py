"""A budget of time: its share drives the schedule, is kept, is recorded, and ends the run."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn import checkpoint
from electra_jax.learn.arrays import flatten
from electra_jax.learn.step import SHARE
from electra_jax.pretrain import budget, loop, sensible
from electra_jax.pretrain.budget import Budget
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError


class Clock:
    """Goes on by `step` seconds whenever it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def made(seconds: float, clock: Clock, before: float = 0.0, done: int = 0) -> tuple[Budget, list]:
    lines: list = []
    state = {SHARE: np.float32(before)}
    return Budget(
        seconds, state, done, np.float32, lambda step, share: lines.append((step, share)), clock
    ), lines


def test_slow_steps_are_counted_one_by_one():
    """Catches a budget that ends before its time or long after, and a step whose share is not recorded."""
    timer, lines = made(100.0, Clock(10.0))
    steps = next(done for done in range(1, 100) if timer.read(done))
    assert steps == 10 and timer.over
    assert lines == [(n, pytest.approx(n / 10)) for n in range(11)]
    assert timer.stamp({"step": 3}) == {"step": 3, SHARE: 1.0}


def test_fast_steps_look_at_the_clock_now_and_then():
    """Catches a line of metrics.jsonl for each of a million steps."""

    class PerStep(Clock):
        def __call__(self) -> float:
            return self.now

    clock = PerStep(0.0)
    timer, lines = made(100.0, clock)
    for done in range(1, 200_000):
        clock.now = done * 0.001
        if timer.read(done):
            break
    assert 99_990 <= done <= 100_010
    assert 900 < len(lines) < 1_100


def test_a_resumed_run_has_the_time_that_is_left():
    """Catches a start that gets the whole budget again, and one that takes the pause for training."""
    timer, lines = made(100.0, Clock(10.0), before=0.8, done=40)
    assert lines == [(40, pytest.approx(0.8))]
    assert not timer.read(41) and timer.read(42)


def test_mistakes_are_told(config):
    """Catches a budget that is taken for none, and one whose time among phases nobody knows."""
    for wrong in ("24", "-3h", "0h", "soon", "h", "1e3s"):
        with pytest.raises(UserError, match=r"train.budget.*such as 24h"):
            run_spec(config(f"train.budget={wrong}").to_dict())
    asked = config("train.budget=3h").to_dict()
    asked["train"]["phases"] = [{"steps": asked["train"]["steps"]}]
    with pytest.raises(UserError, match=r"train.phases"):
        run_spec(asked)
    with pytest.raises(UserError, match="from its first step"):
        sensible.check(config("train.budget=3h").to_dict(), config().to_dict())


def lines(folder: Path, split: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_a_run_ends_with_its_time_and_can_be_run_again(config, tmp_path, monkeypatch, capsys):
    """Catches a rate that has not decayed when the time is up, an end that is not the run's, and recorded shares that
    do not give the same parameters, across a stop in the middle."""
    clock = Clock(1.0)
    monkeypatch.setattr(budget.Budget.__init__, "__kwdefaults__", None)
    defaults = (clock,)
    monkeypatch.setattr(budget.Budget.__init__, "__defaults__", defaults)
    asked = ("train.log_every=1", "train.steps=1000", "optim.warmup=100", "train.budget=30s")
    folder = tmp_path / "run"
    assert loop.pretrain(config(*asked, "train.stop_at=13"), folder)
    assert loop.pretrain(None, folder, ["train.stop_at=0"])
    rates = [row["learning_rate"] for row in lines(folder, "train")]
    shares = {row["step"]: row["share"] for row in lines(folder, "budget")}
    assert len(rates) == 30 and list(shares) == list(range(31)) and shares[30] == 1
    assert rates[-1] < 0.1 * max(rates)  # 1000 steps' schedule, over in 30
    assert lines(folder, "valid")[-1]["step"] == 30
    assert "is spent: ended after step 30" in capsys.readouterr().err
    assert loop.pretrain(None, folder)
    assert "finished" in capsys.readouterr().err

    class Replayed(Clock):
        """The recorded shares of a run that was never stopped."""

        def __call__(self) -> float:
            self.now += 1
            return 30.0 * shares[int(self.now) - 1]

    monkeypatch.setattr(budget.Budget.__init__, "__defaults__", (Replayed(1.0),))
    assert loop.pretrain(config(*asked), tmp_path / "again")
    first, again = (flatten(checkpoint.read_params(f)[1]) for f in (folder, tmp_path / "again"))
    for name, x in first.items():
        assert x.tobytes() == again[name].tobytes(), name


def test_the_schedule_follows_the_further_of_time_and_steps():
    """Catches a run that has done all its steps in time and whose rate is still high."""
    from electra_jax.learn import optim
    from electra_jax.learn.optim import OptimSpec

    spec = OptimSpec(
        name="adam",
        peak_lr=1.0,
        warmup=0,
        lr_power=1.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-6,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    for step, share, rate in ((10, 0.5, 0.5), (90, 0.5, 0.1), (0, 1.0, 0.0)):
        at = jnp.maximum(jnp.int32(step), jnp.float32(share) * 100)
        assert float(optim.learning_rate(spec, at, 100)) == pytest.approx(rate)
