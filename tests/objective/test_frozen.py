"""Objectives frozen and two_stage against PyTorch, their temperature, and what is refused."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn import parts as partition
from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part
from electra_jax.model import flops, sharing
from electra_jax.objective import frozen, pair
from electra_jax.spec import UserError

pytestmark = pytest.mark.usefixtures("as_in_a_run")
VOCAB, STEP = 40, 7
OPTIONS = {"generator_run": "gen", "temperature_steps": 10, "temperature_first": 2.0}
LIMIT = 5e-5  # of a tensor's largest gradient; a mistake is a thousand times as far


@pytest.fixture(scope="module")
def there(root: Path) -> ModuleType:
    """in_torch.py, the networks in PyTorch."""
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("in_torch", root / "tests/objective/in_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def computed(make_objective, batch, keys, random_params) -> Any:
    """(objective, parameters, corrupted batch, samples, loss, sums, gradient) at STEP, where two tables are one."""
    objective = make_objective("frozen", {"tying": "gdes"}, **OPTIONS)
    params = random_params(objective)

    @jax.jit
    def run(params):
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
        totals = objective.totals(corrupted)

        def loss(p):
            return objective.loss(Context(p, corrupted, totals, keys, jnp.int32(STEP), {}))

        context = Context(params, corrupted, totals, keys, jnp.int32(STEP), {})
        sampled = objective._generate(context).sampled_BxK
        return corrupted, sampled, jax.value_and_grad(loss, has_aux=True)(params)

    corrupted, sampled, ((loss, sums), gradient) = jax.device_get(run(params))
    return objective, params, corrupted, sampled, loss, sums, flatten(gradient)


@pytest.mark.torch
def test_loss_and_every_gradient_are_pytorchs(there, computed):
    """Catches a generator's loss in the sum, a gradient into it by its table, sums under another temperature."""
    import torch

    _, params, corrupted, sampled, loss, sums, gradient = computed
    p, b = there.leaves(flatten(params)), there.rows(corrupted)
    summed = {
        name: p[f"{sharing.TABLES}/{name.rpartition('/')[2]}"].detach() + x
        if sharing.is_table(name)
        else x
        for name, x in p.items()
    }
    fake, _ = there.spliced(b, there.rows({"x": sampled})["x"])
    h = there.hidden(summed, "embeddings", "discriminator", 2, fake, b)
    logit = there.detection(summed, "discriminator_head", h)
    label, valid = (fake != b["ids"]).double(), b["docs"] > 0
    lost = -label * logit.sigmoid().log() - (1 - label) * (-logit).sigmoid().log()
    total = 50 * lost[valid].sum() / (valid.sum() + 1e-6)
    total.backward()
    assert float(loss) == pytest.approx(total.item(), rel=2e-6)
    found = there.gradients(p)
    assert gradient.keys() == found.keys()
    floor = 1e-2 * max(np.abs(g).max() for g in found.values())
    for path, g in found.items():
        assert np.abs(gradient[path] - g).max() <= LIMIT * max(np.abs(g).max(), floor), path
        assert bool(np.abs(g).max()) != path.startswith("generator"), path
    with torch.no_grad():
        small = there.hidden(p, "generator_embeddings", "generator", 1, b["masked"], b)
        log_p = there.words(
            p, "generator_embeddings", "generator_head", there.at_chosen(b, small), VOCAB
        )
        cooled = (log_p / (1 + np.exp(-STEP / 10))).log_softmax(-1)
        theirs = (there.loss_of(cooled, there.at_chosen(b, b["ids"])) * b["weights"]).sum()
        entropy = -((cooled.exp() * cooled).sum(-1) * b["weights"]).sum()
    assert float(sums["mlm_loss"]) == pytest.approx(theirs.item(), rel=1e-5)
    assert float(sums["entropy"]) == pytest.approx(entropy.item(), rel=1e-5)


def test_the_temperature_falls(computed):
    """Catches a rise, a fall by steps of another length, and held-out rows whose samples change with the step."""
    objective = computed[0]
    found = [float(objective.options.temperature_at(jnp.int32(step))) for step in (0, 10, 1000)]
    assert found == pytest.approx([2, 1 + np.exp(-1), 1])
    assert objective.metrics(computed[5])["temperature"] == pytest.approx(1 + np.exp(-0.7))


def test_held_out_rows_have_the_last_temperature(make_objective, evaluated, random_params):
    """Catches an evaluation under the first temperature: its step is 0."""
    objective = make_objective("frozen", {"tying": "none"}, **OPTIONS)
    params = random_params(objective)
    plain = make_objective("electra", {"tying": "none"})
    ours, theirs = evaluated(objective, params), evaluated(plain, params)
    assert objective.metrics(ours["sums"])["temperature"] == 1
    for name in ("mlm_loss", "disc_loss", "replaced"):
        assert ours["sums"][name] == pytest.approx(theirs["sums"][name], rel=1e-6)


def test_the_generator_has_no_moments_and_does_not_count_three_times(make_objective):
    """Catches a generator that is descended by decay alone, and FLOPs of a backward pass that is not there."""
    objective = make_objective("frozen", {"tying": "none"}, **OPTIONS)
    optim = OptimSpec(
        name="adam",
        peak_lr=1e-3,
        warmup=0,
        lr_power=1.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-6,
        weight_decay=0.01,
        clip_norm=1.0,
    )
    parts = objective.parts(Part(optim=optim, steps=4))
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    still = partition.split(parts, shapes)["generator"]
    assert sorted(still) == ["generator", "generator_embeddings", "generator_head"]
    assert [part.name for part in partition.trainable(parts)] == ["discriminator"]
    whole = make_objective("electra", {"tying": "none"}).flops(16)
    slots = objective.options.slots(16)
    saved = pair.generator_flops(objective.dims, 16, slots) * (1 - 1 / flops.PASSES)
    assert objective.flops(16) == pytest.approx(whole - saved)


@pytest.mark.parametrize(
    ("name", "model", "changes", "expected"),
    [
        ("frozen", {}, {"generator_run": ""}, "objective.generator_run names no generator; set it"),
        ("frozen", {}, {"temperature_steps": 0}, "temperature_first=2.0 and temperature_steps=0"),
        ("frozen", {"tying": "embeddings"}, {}, "model.tying=embeddings is not for objective.name"),
        ("two_stage", {}, {}, "they differ: width 8 and 16; embedding 8 and 12; heads 1 and 2"),
    ],
)
def test_it_says_what_is_missing(make_objective, name, model, changes, expected):
    """Catches a run without a generator, one whose temperature never falls, tables that are descended and still."""
    with pytest.raises(UserError, match=expected):
        make_objective(name, {"tying": "none"} | model, **OPTIONS | changes)


def test_the_second_stage_has_its_own_default():
    """Catches two_stage under a temperature that its paper does not have."""
    from electra_jax.objective import two_stage

    assert (frozen.Options.temperature_first, two_stage.Options.temperature_first) == (2.0, 0.0)
