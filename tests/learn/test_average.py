"""The average of the weights: its value, and that there is nothing of it where it is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.average import AVERAGE, INNER, Averaged
from electra_jax.learn.learner import Context, Defaults


class Line(Defaults):
    """A learner that carries the number of its steps."""

    def carried(self, params):
        return {"steps": jnp.zeros(())}

    def carry(self, context, params, sums):
        return {"steps": context.carried["steps"] + 1}

    def loss(self, context):
        return context.carried["steps"] * context.params["w"].sum(), {}


def context(params, step, carried):
    return Context(params, {}, {}, {}, jnp.int32(step), carried)


@pytest.mark.parametrize("decay", [0.5, 0.05])
def test_the_average_forgets_what_it_began_with(decay):
    """Catches an average of the weights before the step, and one that keeps fresh weights for thousands of steps."""
    learner = Averaged(Line(), decay)
    params = {"w": jnp.arange(3.0)}
    carried, expected = learner.carried(params), np.arange(3.0)
    for step in range(4):
        new = {"w": jnp.full(3, float(step + 5))}
        carried = learner.carry(context(params, step, carried), new, {})
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * np.asarray(new["w"])
        params = new
    np.testing.assert_allclose(carried[AVERAGE]["w"], expected, rtol=1e-6)
    assert float(carried[INNER]["steps"]) == 4


def test_the_learner_sees_what_it_carries_itself():
    """Catches a wrapped learner whose loss is given the average in place of what it carries."""
    learner = Averaged(Line(), 0.9)
    params = {"w": jnp.ones(3)}
    carried = jax.tree.map(lambda x: x + 2, learner.carried(params))
    assert float(learner.loss(context(params, 0, carried))[0]) == 6
