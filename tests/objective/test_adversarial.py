"""Adversarial ELECTRA: the gradient of every parameter against PyTorch, and what the generator is drawn to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context
from electra_jax.spec import UserError

pytestmark = pytest.mark.usefixtures("as_in_a_run")
VOCAB = 40
LIMIT = 5e-5  # of a tensor's largest gradient; a mistake is a thousand times as far


@pytest.fixture(scope="module")
def found(make_objective, batch, keys, random_params):
    objective = make_objective("adversarial")

    @jax.jit
    def run(params):
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
        totals = objective.totals(corrupted)

        def loss(p):
            return objective.loss(Context(p, corrupted, totals, keys, jnp.int32(0), {}))

        context = Context(params, corrupted, totals, keys, jnp.int32(0), {})
        return (
            corrupted,
            objective.evaluate(context),
            jax.value_and_grad(loss, has_aux=True)(params),
        )

    params = random_params(objective)
    corrupted, (sums, tokens), ((loss, _), gradient) = jax.device_get(run(params))
    return objective, params, corrupted, sums, tokens, loss, flatten(gradient)


@pytest.mark.torch
def test_loss_and_every_gradient_are_pytorchs(there, found):
    """Catches a reward turned round, a gradient through reward, advantage or the baseline's h, a masked-LM loss left
    in, a baseline of another scale."""
    _, params, corrupted, _, tokens, loss, gradient = found
    import torch

    p, b = there.leaves(flatten(params)), there.rows(corrupted)
    fake = torch.tensor(tokens["ids"]).long()
    weight = b["weights"].double()
    h = there.at_chosen(b, there.hidden(p, "embeddings", "generator", 1, b["masked"], b))
    log_p = there.words(p, "embeddings", "generator_head", h, VOCAB)
    logit = there.detection(
        p, "discriminator_head", there.hidden(p, "embeddings", "discriminator", 2, fake, b)
    )
    is_fake = (fake != b["ids"]).double()
    probability = is_fake * logit.sigmoid() + (1 - is_fake) * (-logit).sigmoid()  # of the truth
    valid = b["docs"] > 0
    detection = -probability.log()[valid].sum() / (valid.sum() + 1e-6)
    right = there.at_chosen(b, probability).detach()
    estimate = (h.detach() @ p["generator_baseline/kernel"])[..., 0].sigmoid()
    advantage = (-right.log() + estimate.log()).detach()
    # REINFORCE ascends E[advantage x log p(sample)].
    policy = -advantage * -there.loss_of(log_p, there.at_chosen(b, fake))
    baseline = -right * estimate.log() - (1 - right) * (1 - estimate).log()
    chosen = weight.sum() + 1e-6
    theirs = ((policy + baseline) * weight).sum() / chosen + 50 * detection
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=2e-6)
    expected = there.gradients(p)
    assert gradient.keys() == expected.keys()
    # Key biases move nothing: their gradients are rounding.
    floor = 1e-2 * max(np.abs(g).max() for g in expected.values())
    for path, g in expected.items():
        assert np.abs(gradient[path] - g).max() <= LIMIT * max(np.abs(g).max(), floor), path


def test_every_parameter_learns(found):
    """Catches a baseline that is not trained."""
    for path, g in found[-1].items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, path


def test_metrics(found):
    """Catches a reward that is a mean over all tokens, and a loss that is not what is descended."""
    objective, _, corrupted, sums, tokens, loss, _ = found
    values = objective.metrics(sums)
    assert values["loss"] == pytest.approx(float(loss), rel=1e-5)
    logit, label = tokens["score"].astype(np.float64), tokens["label"]
    lost = np.logaddexp(0, np.where(label > 0, -logit, logit))
    at_chosen = np.take_along_axis(lost, corrupted["chosen"], axis=1)
    weight = corrupted["weights"]
    assert values["reward"] == pytest.approx((at_chosen * weight).sum() / weight.sum(), rel=1e-5)


def test_the_generator_comes_to_fool_the_discriminator(make_objective, batch, keys, random_params):
    """Catches a generator that is drawn to what the discriminator finds: a sign, wherever it stands.

    The discriminator stays as it is, so the mean reward grows.
    """
    objective = make_objective("adversarial", {"tying": "none"})
    params = jax.tree.map(jnp.asarray, random_params(objective))
    corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
    totals = objective.totals(corrupted)

    @jax.jit
    def step(params, number):
        sample = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
        context = Context(params, corrupted, totals, sample, number, {})
        g, sums = jax.grad(lambda p: objective.loss(context._replace(params=p)), has_aux=True)(
            params
        )
        moved = {name: jax.tree.map(lambda p, d: p - 0.1 * d, params[name], g[name]) for name in g}
        kept = {name: x for name, x in params.items() if not name.startswith("generator")}
        return moved | kept, sums["reward"]

    rewards = []
    for number in range(120):
        params, reward = step(params, jnp.int32(number))
        rewards.append(float(reward))
    first, last = np.mean(rewards[:30]), np.mean(rewards[-30:])
    print(f"reward {first:.2f} -> {last:.2f}")
    assert last > 1.2 * first


def test_other_tyings_are_refused(make_objective):
    """Catches one network that would learn to fool itself."""
    with pytest.raises(UserError, match="model.tying=all is not for objective.name=adversarial"):
        make_objective("adversarial", {"tying": "all"})
