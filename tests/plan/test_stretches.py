"""Phases of a run, weighed one by one: their batches, lengths, steps and schedules, and what they come to."""

import pytest

from electra_jax.plan import report
from electra_jax.plan.stretches import Stretch, described, stretches
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError, load_config


def test_every_phase_is_weighed_as_it_will_run():
    """Catches a plan of the first phase that is said to be the run's: other rows, batch, steps or rate."""
    run = run_spec(load_config("nvidia").to_dict())
    short, long = stretches("nvidia", run, None, 30522)
    assert (short.data.seq_len, long.data.seq_len) == (128, 512)
    assert [(s.run.train.steps, s.run.train.batch) for s in (short, long)] == [
        (10_000, 67_584),
        (930, 27_648),
    ]
    assert (long.run.train.accumulation, long.run.optim.peak_lr) == (144, 4e-3)
    assert long.run.phases(long.data)[0].batch == 27_648
    assert (long.number, long.of) == (2, 2)
    assert long.flags("--config.train.batch=8 fits") == "train.phases[1].batch=8 fits"
    assert long.flags("--config.model.remat=layer") == "--config.model.remat=layer"


def test_a_run_without_phases_is_itself():
    """Catches a name of a phase, or a step, in the plan of a run that has none."""
    run = run_spec(load_config("tiny").to_dict())
    (alone,) = stretches("tiny", run, None, 500)
    assert alone == Stretch(run, described("tiny", "", None, 500))
    assert alone.flags("--config.train.batch=8") == "--config.train.batch=8"


def test_a_folder_nobody_knows_the_length_of():
    """Catches a second phase that is planned with the rows of the first."""
    run = run_spec(load_config("nvidia:elsewhere/").to_dict())
    with pytest.raises(UserError, match=r"train.phases\[1\]: elsewhere/ is not there"):
        stretches("nvidia:elsewhere/", run, None, 30522)


def test_phases_add_up():
    """Catches a whole run that costs what its first phase does, or hours beside a phase that does not fit."""
    one = {"topology": "cpu", "config": "c", "steps": 10, "memory": {"fits": True}}
    timed = [one | {"run": {"hours": h, "chip_hours": 8 * h, "money": None}} for h in (1.0, 2.5)]
    found = report.whole(timed)
    assert (found["steps"], found["hours"], found["chip_hours"]) == (20, 3.5, 28.0)
    assert report.whole_text(found) == "2 phases: 20 steps in 3.5 h = 28.0 chip-hours (estimates)"
    large = report.whole([timed[0], one | {"memory": {"fits": False}}])
    assert not large["fits"] and large["hours"] is None
    assert "does not fit" in report.whole_text(large)
