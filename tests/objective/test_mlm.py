"""Plain masked language modelling: the full-size network, one denominator, no discriminator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context


@pytest.fixture(scope="module")
def found(make_objective, batch, keys, random_params):
    objective = make_objective("mlm")

    @jax.jit
    def run(params):
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
        totals = objective.totals(corrupted)
        grad = jax.value_and_grad(
            lambda p: objective.loss(Context(p, corrupted, totals, keys, jnp.int32(0), {})),
            has_aux=True,
        )
        return corrupted, totals, grad(params)

    corrupted, totals, ((loss, sums), gradient) = jax.device_get(run(random_params(objective)))
    return objective, corrupted, totals, loss, sums, flatten(gradient)


def test_loss_is_the_mean_over_chosen_positions(found):
    """Catches a mean over tokens or rows."""
    objective, corrupted, totals, loss, sums, _ = found
    assert set(totals) == {"masked"}
    assert totals["masked"] == corrupted["weights"].sum() == 17
    assert loss == pytest.approx(sums["mlm_loss"] / (17 + 1e-6), rel=1e-6)
    values = objective.metrics(sums)
    assert values["loss"] == values["mlm_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert not any(name.startswith("disc") for name in values)


def test_every_parameter_learns(found):
    """Catches a part of the network, or of the shared embeddings, that is not used."""
    *_, gradient = found
    assert gradient["embeddings/word"].shape[0] == 128
    assert np.all(gradient["embeddings/word"][40:] == 0)
    for name, x in gradient.items():
        assert np.abs(x).max() > 0, name
    assert {name.partition("/")[0] for name in gradient} == {"embeddings", "encoder", "head"}


def test_masks_as_electra_does(make_objective, batch, keys, found):
    """Catches another split than 85/15/0, and masks that differ between objectives."""
    joint = make_objective()
    corrupted = jax.jit(lambda b: joint.prepare(b, keys))(batch)
    for name in ("chosen", "weights", "masked"):
        assert np.array_equal(corrupted[name], found[1][name])
