"""Schedule wsd: a level rate that does not know the run's length, and decays that begin from any of its checkpoints."""

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from electra_jax.learn import content, optim
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.pretrain import loop
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import complete, run_spec
from electra_jax.spec import UserError
from electra_jax.workdir import fork
from electra_jax.workdir.record import read_record

TRUNK = ("optim.schedule=wsd", "optim.warmup=2", "train.steps=1000", "train.eval_every=1000")
KEPT = ("train.log_every=1", "train.checkpoint_every=4", "train.keep_every=4")


def spec(config: Callable[..., Any], *overrides: str) -> Any:
    plain = complete(config().to_dict())
    for override in overrides:
        path, _, value = override.partition("=")
        section, key = path.split(".")
        plain[section][key] = type(plain[section][key])(value)
    return run_spec(plain)


@pytest.mark.parametrize(
    ("shape", "left"),
    [("linear", [1, 0.75, 0.5, 0.25, 0]), ("1-sqrt", [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0])],
)
def test_the_rate_is_level_and_then_comes_down(config, shape: str, left: list[float]):
    """Catches a decay that begins a step early or late, is of another shape, goes below 0, or a peak that the length of
    the run bends."""
    made = dataclasses.replace(
        spec(config).optim, schedule="wsd", warmup=4, decay_steps=4, decay_shape=shape, peak_lr=0.1
    )
    rates = [float(optim.learning_rate(made, jnp.int32(s), 20)) for s in range(22)]
    expected = [0, 0.25, 0.5, 0.75, *[1] * 12, *left, 0]
    assert rates == pytest.approx([0.1 * x for x in expected], rel=1e-6, abs=1e-9)
    level = [optim.learning_rate(made, jnp.int32(s), n) for s in range(17) for n in (20, 9_999)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(level[::2], level[1::2], strict=True))


def test_without_a_decay_the_rate_stays(config):
    """Catches 0 / 0, and a run of open end whose rate falls at the end that it was given."""
    made = dataclasses.replace(spec(config).optim, schedule="wsd", warmup=0, peak_lr=0.1)
    rates = [float(optim.learning_rate(made, jnp.int32(s), 20)) for s in (0, 19, 20, 30)]
    assert rates == pytest.approx([0.1] * 4)


@pytest.mark.parametrize(
    ("before", "now", "done", "free"),
    [
        ([], ["train.steps=2000"], 900, True),
        ([], ["train.steps=900", "optim.decay_steps=100"], 800, True),
        ([], ["train.steps=900", "optim.decay_steps=100"], 801, False),
        (["optim.decay_steps=100"], ["train.steps=2000"], 900, True),
        (["optim.decay_steps=100"], ["train.steps=2000"], 901, False),
        (["optim.schedule=polynomial"], ["train.steps=2000"], 0, False),
        (["train.budget=1h"], ["train.budget=1h", "train.steps=2000"], 0, False),
    ],
)
def test_the_end_may_change_as_long_as_no_rate_has(
    config, before: list[str], now: list[str], done: int, free: bool
):
    """Catches a longer run that is refused although nothing it did depends on it, and one that is let go on although
    its rates would have been others."""
    begun = spec(config, *TRUNK, *before)
    changed = spec(config, *TRUNK, *before, *now)
    assert ("train.steps" in starts.ending(begun, changed, done)) == free


def test_only_the_end_may_change(config, tmp_path):
    """Catches another rate, or another schedule, that goes through with the length of the run."""
    starts.begin(starts.open_run(config(), tmp_path, TRUNK))
    start = starts.open_run(None, tmp_path, ["train.steps=9", "optim.decay_steps=3"])
    assert [change.field for change in start.changes] == ["optim.decay_steps", "train.steps"]
    for other in ("optim.peak_lr=0.5", "optim.schedule=polynomial", "optim.warmup=3"):
        with pytest.raises(UserError, match=other.partition("=")[0]):
            starts.open_run(None, tmp_path, ["train.steps=9", other])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.decay_steps=3"], "optim.decay_steps=3 is an option of wsd, but optim.schedule="),
        (["optim.schedule=wsd", "optim.decay_steps=16"], "longer than what train.steps=20 leaves"),
        (["optim.schedule=wsd", "optim.decay_shape=cosine"], "optim.decay_shape.*1-sqrt, linear"),
        (["optim.schedule=wds"], "Did you mean 'wsd'"),
    ],
)
def test_impossible_schedules_are_refused(config, tmp_path, overrides: list[str], message: str):
    """Catches a decay that never happens, or begins in the warmup."""
    with pytest.raises(UserError, match=message):
        starts.open_run(config(), tmp_path, overrides)


def test_a_fork_needs_a_checkpoint_and_a_place_of_its_own(config, tmp_path):
    """Catches a half-made workdir, a run that is overwritten, and a step that is not there."""
    with pytest.raises(UserError, match="is not a workdir"):
        fork.fork(tmp_path / "none", tmp_path / "new")
    starts.begin(starts.open_run(config(), tmp_path / "run", TRUNK))
    with pytest.raises(UserError, match="has no checkpoint to begin from; it has: none"):
        fork.fork(tmp_path / "run", tmp_path / "new")
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(4, {"step": jnp.int32(4)}, {})
    with pytest.raises(UserError, match="no checkpoint of step 3 to begin from; it has: 4"):
        fork.fork(tmp_path / "run", tmp_path / "new", 3)
    with pytest.raises(UserError, match="bucket; copy the run"):
        fork.fork("gs://bucket/run", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "after step 4" in str(fork.fork(tmp_path / "run", tmp_path / "new"))
    assert read_record(tmp_path / "new") == read_record(tmp_path / "run")
    # Again, as after a kill; from elsewhere; and over another run.
    assert fork.fork(tmp_path / "run", tmp_path / "new", 4) is None
    with pytest.raises(UserError, match="was begun from step 4 of .*, not from step 5"):
        fork.fork(tmp_path / "run", tmp_path / "new", 5)
    with pytest.raises(UserError, match="run"):
        fork.fork(tmp_path / "new", tmp_path / "run")


@pytest.fixture(scope="module")
def runs(config: Callable[..., Any], cheap, tmp_path_factory) -> SimpleNamespace:
    """A trunk of 12 steps from whose step 4 a decay of 4 steps branched off when the trunk was at 8; both straight."""
    home = tmp_path_factory.mktemp("wsd")
    decay = ("train.steps=8", "optim.decay_steps=4")
    loop.pretrain(config(*KEPT), home / "trunk", (*TRUNK, "train.stop_at=8"))
    branch = (home / "trunk", 4)
    loop.pretrain(None, home / "decayed", (*decay, "train.stop_at=0"), origin=branch)
    loop.pretrain(None, home / "trunk", ("train.stop_at=12", "train.steps=2000"))
    loop.pretrain(config(*KEPT), home / "straight", (*TRUNK, *decay, "train.eval_every=1000"))
    loop.pretrain(config(*KEPT), home / "alone", (*TRUNK, "train.stop_at=12"))
    return SimpleNamespace(home=home)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "step"), [("decayed", "straight", 8), ("trunk", "alone", 12)]
)
def test_trunk_and_decay_are_what_straight_runs_give(runs, one: str, other: str, step: int):
    """Catches a fork that changes what either run learns: moments, data order, masks or rates."""
    states = [
        content.read(runs.home / name / "checkpoints" / str(step), "")[1] for name in (one, other)
    ]
    assert len(states[0]) > 50
    for path, x in states[0].items():
        assert x.tobytes() == states[1][path].tobytes(), path


@pytest.mark.slow
def test_the_fork_has_the_lines_of_both(runs):
    """Catches metrics that begin with the fork, or that the trunk wrote after it."""
    rates = []
    for name in ("decayed", "straight"):
        lines = (runs.home / name / "metrics.jsonl").read_text().splitlines()
        told = {line["step"]: line for line in map(json.loads, lines) if line["split"] == "train"}
        rates.append([told[step]["learning_rate"] for step in range(1, 9)])
    assert rates[0] == rates[1]
    assert rates[0][3] == rates[0][4] > rates[0][5] > rates[0][7] > 0
    changes = read_record(runs.home / "decayed")["changes"]
    assert {c["field"]: c["step"] for c in changes}["optim.decay_steps"] == 4


@pytest.mark.slow
def test_what_has_decayed_is_not_made_longer(runs):
    """Catches a rate that jumps up again in a run whose record says it had come down."""
    with pytest.raises(UserError, match="train.steps: was 8, now 20"):
        loop.pretrain(None, runs.home / "decayed", ["train.steps=20"])


def test_from_is_not_for_recipes(config, tmp_path):
    """Catches a config that is silently dropped for that of the run copied, and a step of nothing."""
    with pytest.raises(UserError, match="leave --config out"):
        loop.pretrain(config(), tmp_path / "new", origin=(tmp_path, None))
    with pytest.raises(UserError, match="--step 3 is that of the run that --from names"):
        loop.pretrain(config(), tmp_path / "new", origin=(None, 3))
