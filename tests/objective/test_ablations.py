"""The ablations of the paper's section 3.4 against PyTorch: losses and every gradient, and what each is made for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context
from electra_jax.objective import pair
from electra_jax.spec import UserError

pytestmark = pytest.mark.usefixtures("as_in_a_run")
NAMES = ("electra_15", "replace_mlm", "all_tokens_mlm")
HEADS = {"discriminator": 2, "generator": 1, "encoder": 2}
VOCAB = 40
LIMIT = 5e-5  # of a tensor's largest gradient; a mistake is a thousand times as far


@pytest.fixture(scope="module")
def computed(make_objective, batch, keys, random_params):
    """name -> (objective, parameters, corrupted batch, samples, loss, sums, gradient), each computed once."""
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name in made:
            return made[name]
        objective = make_objective(name)

        @jax.jit
        def run(params):
            corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
            totals = objective.totals(corrupted)

            def loss(p):
                return objective.loss(Context(p, corrupted, totals, keys, jnp.int32(0), {}))

            context = Context(params, corrupted, totals, keys, jnp.int32(0), {})
            sampled = pair.generate(objective.dims, context, None).sampled_BxK
            return corrupted, sampled, jax.value_and_grad(loss, has_aux=True)(params)

        params = random_params(objective)
        corrupted, sampled, ((loss, sums), gradient) = jax.device_get(run(params))
        made[name] = objective, params, corrupted, sampled, loss, sums, flatten(gradient)
        return made[name]

    return of


def generated(there, p, b):
    """The generator's masked-LM loss in PyTorch, a mean over the chosen positions."""
    h = there.hidden(p, "embeddings", "generator", HEADS["generator"], b["masked"], b)
    log_p = there.words(p, "embeddings", "generator_head", there.at_chosen(b, h), VOCAB)
    lost = there.loss_of(log_p, there.at_chosen(b, b["ids"]))
    return (lost * b["weights"]).sum() / (b["weights"].sum() + 1e-6)


def electra_15(there, p, b, sampled):
    """1 x MLM + 50 x detection at the chosen positions."""
    fake, chosen = there.spliced(b, sampled)
    h = there.hidden(p, "embeddings", "discriminator", HEADS["discriminator"], fake, b)
    logit = there.detection(p, "discriminator_head", h)
    label = (fake != b["ids"]).double()
    lost = -label * logit.sigmoid().log() - (1 - label) * (-logit).sigmoid().log()
    return generated(there, p, b) + 50 * lost[chosen].sum() / (chosen.sum() + 1e-6)


def replace_mlm(there, p, b, sampled):
    """MLM + MLM of the full-size network on the replaced text."""
    fake, chosen = there.spliced(b, sampled)
    h = there.hidden(p, "embeddings", "encoder", HEADS["encoder"], fake, b)
    lost = there.loss_of(there.words(p, "embeddings", "head", h, VOCAB), b["ids"])
    return generated(there, p, b) + lost[chosen].sum() / (chosen.sum() + 1e-6)


def all_tokens_mlm(there, p, b, sampled):
    """MLM + the loss of copy gate and softmax together, at every token that is not padding."""
    fake, _ = there.spliced(b, sampled)
    h = there.hidden(p, "embeddings", "encoder", HEADS["encoder"], fake, b)
    word = there.words(p, "embeddings", "head", h, VOCAB).exp()
    word = word.gather(-1, b["ids"][..., None])[..., 0]
    copy = there.linear(p, "copy", h)[..., 0].sigmoid()
    lost = -(copy * (fake == b["ids"]) + (1 - copy) * word).log()
    valid = b["docs"] > 0
    return generated(there, p, b) + lost[valid].sum() / (valid.sum() + 1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_every_gradient_are_pytorchs(there, computed, name):
    """Catches another denominator, labels by selection, a loss at other positions, a gradient through the samples."""
    _, params, corrupted, sampled, loss, _, gradient = computed(name)
    p, b = there.leaves(flatten(params)), there.rows(corrupted)
    theirs = globals()[name](there, p, b, there.rows({"x": sampled})["x"])
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=2e-6)
    found = there.gradients(p)
    assert gradient.keys() == found.keys()
    # Key biases move nothing: their gradients are rounding.
    floor = 1e-2 * max(np.abs(g).max() for g in found.values())
    for path, g in found.items():
        assert np.abs(gradient[path] - g).max() <= LIMIT * max(np.abs(g).max(), floor), path


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(computed, name):
    """Catches a network, or a part of the shared embeddings, that is not trained."""
    gradient = computed(name)[-1]
    for path, g in gradient.items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, path


def test_electra_15_scores_the_chosen_positions_alone(make_objective, evaluated, random_params):
    """Catches metrics, or ranks, over all tokens: the 85% that nobody trained would drown the rest."""
    objective = make_objective("electra_15")
    params = random_params(objective)
    ours, theirs = evaluated(objective, params), evaluated(make_objective(), params)
    weights = ours["batch"]["weights"]
    assert ours["sums"]["valid"] == ours["valid"].sum() == weights.sum() == 17
    for row, place in enumerate(ours["batch"]["chosen"]):
        assert ours["valid"][row, place[weights[row] > 0]].all()
    # The same networks, masks and samples as electra's.
    assert np.array_equal(ours["ids"], theirs["ids"])
    assert np.array_equal(ours["score"], theirs["score"])
    assert ours["sums"]["mlm_loss"] == theirs["sums"]["mlm_loss"]
    assert ours["sums"]["replaced"] == theirs["sums"]["replaced"]
    values = objective.metrics(ours["sums"])
    assert values["loss"] == pytest.approx(values["mlm_loss"] + 50 * values["disc_loss"])


def test_replace_mlm_reads_samples_in_place_of_masks(make_objective, evaluated, random_params):
    """Catches a full-size network that reads [MASK], and one that is fed the true text."""
    objective = make_objective("replace_mlm")
    params = random_params(objective)
    before = evaluated(objective, params)["sums"]
    # A generator that always draws token 7, and no [MASK] among what is predicted.
    params["generator_head"]["bias"][7] = 1e4
    params["head"]["bias"][4] = -1e4
    sevens = evaluated(objective, params)["sums"]
    params["embeddings"]["word"][4] += 1  # [MASK]
    assert evaluated(objective, params)["sums"]["main_loss"] == sevens["main_loss"]
    assert before["main_loss"] != sevens["main_loss"]
    assert sevens["sampled_correct"] < 3


@pytest.mark.parametrize("name", NAMES)
def test_another_tying_is_refused(make_objective, name):
    """Catches a pair that would share what this objective has no second user for."""
    if name == "electra_15":
        make_objective(name, {"tying": "all"})
        return
    with pytest.raises(UserError, match=f"model.tying=all is not for objective.name={name}"):
        make_objective(name, {"tying": "all"})


def test_all_tokens_mlm_at_the_ends_of_its_gate(make_objective, evaluated, random_params):
    """Catches a gate that is turned round, a copy of the true token, NaN where a sigmoid is 0 or 1 to float32."""
    objective = make_objective("all_tokens_mlm")
    params = random_params(objective)
    params["copy"]["kernel"][:] = 0
    found = {}
    for bias in (-200.0, 200.0):
        params["copy"]["bias"][:] = bias
        found[bias] = evaluated(objective, params)["sums"]
    never, always = found[-200.0], found[200.0]
    assert never["copy_original"] == never["copy_replaced"] == 0
    assert always["copy_original"] == always["main"] - always["replaced"]
    # Who always copies loses 200 and the softmax's loss at each replaced token, and nothing elsewhere.
    assert always["replaced"] > 0
    assert always["main_loss"] == pytest.approx(always["chosen_loss"])
    at_replaced = always["main_loss"] - 200 * always["replaced"]
    assert 0 < at_replaced < never["main_loss"]
    # Who never copies is a masked LM at every token: the loss at the chosen ones is replace_mlm's.
    other = make_objective("replace_mlm")
    shared = {name: x for name, x in params.items() if name != "copy"}
    assert never["chosen_loss"] == pytest.approx(evaluated(other, shared)["sums"]["main_loss"])
