"""Advice from few compilations, on a compiler that is a straight line."""

import dataclasses

import pytest

from electra_jax.plan import advise
from electra_jax.plan.advise import Trial
from electra_jax.plan.step import Compiled, TooLarge
from electra_jax.plan.stretches import described
from electra_jax.plan.weighed import Memory, Weighed
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError, load_config

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

    trials = advise.shrink(run, 4, 3, False, False, attempt)
    assert [t.change for t in trials] == [
        "--config.model.remat=layer",
        "--config.model.remat=layer --config.mesh.data=1 --config.mesh.fsdp=4",
    ]
    assert [t.fits(LIMIT) for t in trials] == [False, True]
    first = advise.shrink(run, 4, 1, True, False, attempt)[0]
    assert first.change == "--config.mesh.data=1 --config.mesh.fsdp=4"
    more = advise.shrink(run, 4, 3, False, True, attempt)
    assert more[0].change == "--config.model.remat=attention"
    assert more[-1].fits(LIMIT)
    two = advise.shrink(run, 8, 1, True, False, attempt, slices=2)
    assert two[0].change == "--config.mesh.data=2 --config.mesh.fsdp=4"  # inside a slice


def test_attention_is_recomputed_where_that_may_be_enough(run):
    """Catches a compilation spent on what cannot help: a kernel that keeps no weights, or far too little memory."""
    data, named = described("tiny", "", 32, 500), ("1G f32[8,2,32,32] softmax", "1M f32[64]")
    assert advise.attention_helps(run, data, 4, TooLarge(LIMIT + 1, LIMIT, named))
    assert not advise.attention_helps(run, data, 4, TooLarge(LIMIT + 1, LIMIT, named[1:]))
    assert not advise.attention_helps(run, data, 4, TooLarge(2**40, LIMIT, named))


def test_what_a_config_does_not_allow_is_passed_over(run):
    """Catches advice that ends with an error of its own making, or that counts what was never compiled."""

    def attempt(changed):
        if changed.mesh.fsdp > 1:
            raise UserError("does not divide")
        return TooLarge(2000, LIMIT, ())

    run = dataclasses.replace(run, model=dataclasses.replace(run.model, remat="layer"))
    trials = advise.shrink(run, 4, 3, True, True, attempt)
    assert [t.change for t in trials] == [f"--config.train.accumulation={n}" for n in (2, 4, 8)]
