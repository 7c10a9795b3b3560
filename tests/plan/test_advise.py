"""Advice from few compilations, on a compiler that is a straight line."""

import dataclasses

import pytest

from electra_jax.plan import advise
from electra_jax.plan.advise import Trial
from electra_jax.plan.step import Compiled, TooLarge
from electra_jax.plan.stretches import described
from electra_jax.plan.weighed import Memory, Weighed
from electra_jax.spec import UserError, load_config
from electra_jax.train.options import run_spec

LIMIT = 1000


def compiled(needed: int, arguments: int = 100) -> Compiled:
    memory = Memory(arguments, arguments, needed - arguments, arguments, 0)
    return Compiled(None, None, Weighed((), (), (), memory, ()), 1.0)


@pytest.fixture
def run():
    return run_spec(load_config("tiny", ["train.batch=64"]).to_dict())


@pytest.mark.parametrize("fixed", [100, 150, 400])
def test_the_largest_batch_in_three_tries(fixed):
    """Catches advice that overfills the memory, stays far below it, or compiles more often than it said."""
    tried = []

    def attempt(batch: int):
        tried.append(batch)
        needed = fixed + 2 * batch
        return compiled(needed) if needed <= LIMIT else TooLarge(needed, LIMIT, ())

    first = Trial("", 64, compiled(fixed + 2 * 64))
    trials = advise.grow(first, LIMIT, 8, 3, attempt)
    best = max(t.batch for t in trials if t.fits(LIMIT))
    assert len(tried) <= 3 and len(set(tried)) == len(tried)
    assert all(batch % 8 == 0 for batch in tried)
    largest = (LIMIT - fixed) // 2
    assert 0.9 * largest <= best <= largest


def test_a_batch_that_is_as_large_as_can_be_is_left_alone():
    """Catches compilations for a gain of nothing."""
    first = Trial("", 440, compiled(100 + 2 * 440))
    assert advise.grow(first, LIMIT, 8, 3, lambda batch: pytest.fail("compiled")) == [first]


def test_ways_to_make_it_fit_add_up(run):
    """Catches advice that forgets what it changed before, or that goes on after something fits."""

    def attempt(changed):
        if changed.model.remat == "layer" and changed.mesh.fsdp == 4:
            return compiled(900)
        return TooLarge(2000, LIMIT, ())

    data, much = described("tiny", "", 32, 500), 2**40
    trials = advise.shrink(run, data, 4, 3, False, much, attempt)
    assert [t.change for t in trials] == [
        "--config.model.remat=layer",
        "--config.model.remat=layer --config.mesh.data=1 --config.mesh.fsdp=4",
    ]
    assert [t.fits(LIMIT) for t in trials] == [False, True]
    first = advise.shrink(run, data, 4, 1, True, much, attempt)[0]
    assert first.change == "--config.mesh.data=1 --config.mesh.fsdp=4"
    little = advise.shrink(run, data, 4, 3, False, 2**10, attempt)
    assert little[0].change == "--config.model.remat=attention"
    assert little[-1].fits(LIMIT)


def test_what_a_config_does_not_allow_is_passed_over(run):
    """Catches advice that ends with an error of its own making, or that counts what was never compiled."""

    def attempt(changed):
        if changed.mesh.fsdp > 1:
            raise UserError("does not divide")
        return TooLarge(2000, LIMIT, ())

    run = dataclasses.replace(run, model=dataclasses.replace(run.model, remat="layer"))
    trials = advise.shrink(run, described("tiny", "", 32, 500), 4, 3, True, 1, attempt)
    assert [t.change for t in trials] == [f"--config.train.accumulation={n}" for n in (2, 4, 8)]
