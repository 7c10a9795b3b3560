"""Parts: each its own optimizer, schedule, clipping and factors; frozen ones learn nothing and keep no moments."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn import parts, step
from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context, Defaults
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part
from electra_jax.spec import UserError

ADAM = OptimSpec(
    name="adam",
    peak_lr=0.1,
    warmup=0,
    lr_power=0.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.0,
    clip_norm=1e9,
)
BODY = Part(name="body", pattern="^body/", optim=ADAM, steps=10)
HEAD = Part(name="head", pattern="^head/", optim=ADAM, steps=10)


class Two(Defaults):
    """The square of the sum of two vectors' products with a row: any part's gradient depends on both."""

    def init(self, key: jax.Array) -> dict[str, Any]:
        return {"body": {"kernel": jnp.ones((3, 1))}, "head": {"kernel": jnp.full((3, 1), 2.0)}}

    def totals(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def loss(self, context: Context) -> tuple[jax.Array, dict[str, Any]]:
        p, x_BxL = context.params, context.batch["ids"].astype(jnp.float32)
        return jnp.sum((x_BxL @ (p["body"]["kernel"] + p["head"]["kernel"])) ** 2), {}


def run(*chosen: Part, steps: int = 3, batch: Any = None) -> dict[str, Any]:
    """The state after a few steps."""
    learner, x = Two(), np.arange(6, dtype=np.int32).reshape(2, 3) if batch is None else batch
    one = jax.jit(step.make_train_step(learner, chosen, keys=lambda _: {}))
    state = step.init_state(learner, chosen, learner.init(jax.random.key(0)))
    for _ in range(steps):
        state, _ = one(state, {"ids": x})
    return jax.device_get(state)


def test_two_parts_of_one_optimizer_are_one():
    """Catches a part that is descended by another's gradient, moments or schedule, and paths that move."""
    whole, two = run(Part(optim=ADAM, steps=10)), run(BODY, HEAD)
    assert set(flatten(whole["params"])) == set(flatten(two["params"]))
    for name, value in flatten(whole["params"]).items():
        assert np.array_equal(value, flatten(two["params"])[name]), name
    assert {path.split("/")[0] for path in flatten(two["opt_state"])} == {"body", "head"}
    assert not {path.split("/")[0] for path in flatten(whole["opt_state"])} & {"body", "head"}


def test_a_frozen_part_stays_and_has_no_moments():
    """Catches a frozen parameter that moves, one that costs memory, and a gradient norm that counts it."""
    state = run(dataclasses.replace(BODY, optim=None), HEAD)
    assert np.array_equal(state["params"]["body"]["kernel"], np.ones((3, 1)))
    assert not np.array_equal(state["params"]["head"]["kernel"], np.full((3, 1), 2.0))
    assert all(path.startswith("head/") for path in flatten(state["opt_state"]))


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"factor": lambda path: 0.5}, 0.5),
        ({"optim": dataclasses.replace(ADAM, peak_lr=0.05)}, 0.5),
        ({"optim": dataclasses.replace(ADAM, warmup=2), "first": -1}, 0.5),
    ],
    ids=["factor", "rate", "schedule"],
)
def test_a_part_has_its_own_rate(change: dict[str, Any], factor: float):
    """Catches factors, rates and schedules that reach the other part, or not their own."""
    plain, changed = (
        run(BODY, HEAD, steps=1),
        run(dataclasses.replace(BODY, **change), HEAD, steps=1),
    )
    assert np.array_equal(plain["params"]["head"]["kernel"], changed["params"]["head"]["kernel"])
    moved = [1 - state["params"]["body"]["kernel"] for state in (plain, changed)]
    assert np.allclose(moved[1], factor * moved[0], rtol=1e-5)


def test_a_part_is_clipped_by_its_own_norm():
    """Catches the norm of all in place of the part's: a large gradient elsewhere would scale it down."""
    tight = dataclasses.replace(
        ADAM, clip_norm=1.0, eps=1e3
    )  # eps: the step follows the gradient's size
    loose = dataclasses.replace(ADAM, eps=1e3)
    state = run(
        dataclasses.replace(BODY, optim=tight), dataclasses.replace(HEAD, optim=loose), steps=1
    )
    moments = flatten(state["opt_state"])
    norm = {
        name: np.linalg.norm(
            next(v for k, v in moments.items() if k.startswith(name) and "mu" in k)
        )
        for name in ("body", "head")
    }
    assert norm["body"] == pytest.approx(0.1, rel=1e-5)
    assert norm["head"] > 1


def test_a_step_that_is_not_finite_changes_no_part():
    """Catches a guard that looks at one part's gradient alone."""
    before, after = (
        run(BODY, HEAD, steps=0),
        run(BODY, HEAD, steps=1, batch=np.full((2, 3), np.inf, np.float32)),
    )
    for name in ("params", "opt_state"):
        for x, y in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True):
            assert np.array_equal(x, y)
    assert int(after["skipped"]["total"]) == 1


def test_a_path_of_no_part_is_refused():
    """Catches parameters that silently do not learn."""
    with pytest.raises(UserError, match="head/kernel"):
        parts.split([BODY], Two().init(jax.random.key(0)))
