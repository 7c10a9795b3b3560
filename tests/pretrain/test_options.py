"""Options of a run: what clashes is refused, with the numbers and the way out."""

import dataclasses
import json
import re

import numpy as np
import pytest

from electra_jax.data import order
from electra_jax.pretrain.options import SECTIONS, Phase, PhaseSpec, check, complete, run_spec
from electra_jax.spec import UserError


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"steps": 0}, "train.steps=0 must be at least 1"),
        ("train", {"eval_every": 0}, "train.eval_every=0 must be at least 1"),
        ("train", {"accumulation": 3}, "train.batch=8 is not a multiple of train.accumulation=3"),
        ("train", {"batch": 10, "accumulation": 4}, "=4; the nearest batch that is: 8$"),
        ("train", {"stop_at": -1}, "train.stop_at=-1 must be a step, or 0"),
        ("train", {"stpes": 5}, "Did you mean 'train.steps'"),
        ("train", {"steps": "many"}, "expected int"),
        ("mesh", {"fdsp": 1}, "Did you mean 'mesh.fsdp'"),
        ("report", {"tensorboard": "yes"}, "expected bool"),
        ("data", {"path": 3}, "expected str"),
    ],
)
def test_mistakes_in_a_section(config, section: str, changes: dict, message: str):
    """Catches an option of the wrong kind or name that surfaces after an hour."""
    sections = config().to_dict()
    sections[section] |= changes
    with pytest.raises(UserError, match=message):
        run_spec(sections)


def test_sections_are_exactly_the_known_ones(config):
    """Catches a section mistyped, and so ignored, or left out."""
    sections = config().to_dict()
    assert set(sections) == set(SECTIONS)
    with pytest.raises(UserError, match="Did you mean 'optim'"):
        run_spec(sections | {"optm": {}})
    del sections["mesh"], sections["report"]
    with pytest.raises(UserError, match="config lacks the sections mesh, report"):
        run_spec(sections)


@pytest.mark.parametrize(
    ("batch", "accumulation", "devices", "nearest"),
    [(8, 1, 3, 9), (8, 2, 8, 16), (100, 1, 8, 96), (100, 2, 8, 96), (3, 1, 8, 8)],
)
def test_a_batch_that_does_not_divide(config, prepared, batch, accumulation, devices, nearest):
    """Catches an error from inside the compiler, and a nearest batch that does not divide either."""
    options = (f"train.batch={batch}", f"train.accumulation={accumulation}")
    run = run_spec(config(*options).to_dict())
    with pytest.raises(UserError, match=f"the nearest batch that does is {nearest}$"):
        check(run, run.phases(prepared)[0], devices)
    assert nearest % (devices * accumulation) == 0


def test_a_batch_that_divides(config, prepared):
    """Catches a check that refuses what would work."""
    run = run_spec(config("train.batch=16", "train.accumulation=2").to_dict())
    check(run, run.phases(prepared)[0], 8)


def test_rows_longer_than_the_positions(config, prepared):
    """Catches positions past the table, which gathers clamp or fill without a word."""
    run = run_spec(config("model.positions=31").to_dict())
    with pytest.raises(UserError, match="rows of 32 tokens, more than model.positions=31"):
        check(run, run.phases(prepared)[0], 1)


def test_phases_follow_the_data_order(config, prepared):
    """Catches an order that ignores the seed, repeats rows within an epoch, or starts a later phase
    in the middle of its data."""
    run = run_spec(config().to_dict())
    (phase,) = run.phases(prepared)
    assert (phase.first, phase.last, phase.batch) == (0, 20, 8)
    n = prepared.rows["train"]
    epoch = np.concatenate([phase.rows(step, seed=0) for step in range(-(-n // 8))])[:n]
    assert sorted(epoch) == list(range(n))
    assert not np.array_equal(phase.rows(0, seed=1), phase.rows(0, seed=0))
    later = dataclasses.replace(phase, first=7, last=9)
    assert np.array_equal(later.rows(7, seed=0), phase.rows(0, seed=0))
    assert isinstance(later, Phase)


def test_phases_share_the_steps_and_the_data(config, prepared):
    """Catches rows read twice because a phase on the same data begins their order again, a schedule
    that restarts where the run's should go on, and a phase's own that begins before it."""
    run = run_spec(
        config(
            "train.steps=10",
            "train.phases=({'steps': 3}, {'steps': 5, 'batch': 16}, {'steps': 2, 'peak_lr': 1e-3, 'warmup': 1})",
        ).to_dict()
    )
    one, two, three = run.phases(prepared)
    assert [(p.first, p.last, p.batch) for p in (one, two, three)] == [
        (0, 3, 8), (3, 8, 16), (8, 10, 8)
    ]  # fmt: skip
    read = np.concatenate(
        [p.rows(step, 7) for p in (one, two, three) for step in range(p.first, p.last)]
    )
    whole = order.rows(0, len(read), prepared.rows["train"], 7)
    assert np.array_equal(read, whole)
    assert run.schedule(one) == run.schedule(two) == (run.optim, 0, 10)
    own, first, steps = run.schedule(three)
    assert (own.peak_lr, own.warmup, first, steps) == (1e-3, 1, 8, 2)


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ("({'steps': 3},)", "3 steps together, but train.steps=20"),
        ("({'steps': 20, 'batch': 9, 'accumulation': 2},)", "batch=9 is not a multiple"),
        ("({'steps': 20, 'warmup': 2},)", "needs its peak_lr"),
        ("({'stesp': 20},)", "Did you mean 'train.phases[0].steps'"),
        ("({'steps': 20, 'path': 'nowhere'},)", "nowhere is not a folder"),
    ],
)
def test_mistakes_in_phases(config, prepared, phases, said):
    """Catches phases that end before the run, or whose mistakes are found when they begin."""
    with pytest.raises(UserError, match=re.escape(said)):
        run_spec(config(f"train.phases={phases}").to_dict()).phases(prepared)


def test_phases_come_back_from_json(config):
    """Catches a resume refused because a tuple was written as a list."""
    written = json.loads(json.dumps(config("train.phases=({'steps': 20},)").to_dict()))
    assert run_spec(complete(written)).train.phases == (PhaseSpec(steps=20),)
    del written["train"]["phases"]
    assert complete(written) == json.loads(json.dumps(complete(written)))
