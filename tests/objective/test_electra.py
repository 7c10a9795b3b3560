"""The joint objective: denominators, weights, labels, what gradients reach, the ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import noise as noise_ops
from electra_jax.train.arrays import flatten

VOCAB = 40


@pytest.fixture(scope="module")
def plain(make_objective, evaluated):
    return evaluated(make_objective())


def test_corruption_starts_from_the_unmasked_text(plain):
    """Catches [MASK] shown to the discriminator, and replacements outside the chosen positions."""
    b = plain["batch"]
    slots = np.zeros(b["ids"].shape, bool)
    for row, (at, weight) in enumerate(zip(b["chosen"], b["weights"], strict=True)):
        slots[row, at[weight > 0]] = True
    assert (b["masked"] == 4).sum() > 5
    assert np.array_equal(plain["ids"][~slots], b["ids"][~slots])
    assert (plain["ids"] != b["ids"]).sum() > 5
    assert (plain["ids"] == 4).sum() <= 1  # only if drawn, one in forty


def test_labels_are_selected_and_different(plain):
    """Catches labels by selection, and pads that count as tokens."""
    b = plain["batch"]
    assert np.array_equal(plain["label"], plain["ids"] != b["ids"])
    assert np.array_equal(plain["valid"], b["docs"] > 0)
    assert plain["sums"]["replaced"] == plain["label"].sum()
    assert plain["sums"]["replaced"] + plain["sums"]["sampled_correct"] == b["weights"].sum()


def test_a_correct_guess_counts_as_original(make_objective, evaluated, random_params, batch):
    """Catches labels by selection where the generator is right: with one id everywhere, and a
    generator sure of it, nothing is replaced."""
    objective = make_objective()
    params = random_params(objective)
    bias = params["generator_head"]["bias"].copy()
    bias[9] = 1e4
    params["generator_head"] = params["generator_head"] | {"bias": bias}
    out = evaluated(objective, params)
    at_nine = np.take_along_axis(out["batch"]["ids"], out["batch"]["chosen"], 1) == 9
    right = (at_nine * out["batch"]["weights"]).sum()
    assert out["sums"]["sampled_correct"] == out["sums"]["mlm_correct"] == right
    assert out["sums"]["replaced"] == out["batch"]["weights"].sum() - right
    assert np.all(out["ids"][out["label"] > 0] == 9)


def test_denominators(plain):
    """Catches means of row means, [CLS] and [SEP] left out of the tokens, and pads counted in."""
    b = plain["batch"]
    assert plain["totals"]["valid"] == (b["docs"] > 0).sum() == 16 + 16 + 12 + 9 + 5
    # round(0.3 x length) of each row, at most four; the empty row has no candidate.
    assert plain["totals"]["masked"] == 4 + 4 + 4 + 3 + 2
    assert plain["sums"]["valid"] == plain["totals"]["valid"]
    assert plain["sums"]["masked"] == plain["totals"]["masked"]


@pytest.fixture(scope="module")
def gradients(make_objective, batch, keys, random_params):
    """(loss, sums, gradients by path) for weights (1, 50), (1, 0) and (0, 1), totals doubled for the
    first as if these rows were half a batch."""
    objectives = [
        make_objective(generator_weight=g, discriminator_weight=d)
        for g, d in ((1.0, 50.0), (1.0, 0.0), (0.0, 1.0))
    ]

    def all_three(params):
        out = []
        for i, objective in enumerate(objectives):
            corrupted = objective.corrupt(jax.tree.map(jnp.asarray, batch), keys["mask"])
            totals = objective.totals(corrupted)
            if i == 0:
                totals = {name: 2 * value for name, value in totals.items()}
            step = jnp.zeros((), jnp.int32)
            grad = jax.value_and_grad(objective.loss, has_aux=True)
            (loss, sums), found = grad(params, corrupted, totals, keys, step, {})
            out.append((loss, sums, found))
        return out

    out = jax.device_get(jax.jit(all_three)(random_params(objectives[0])))
    return [(loss, sums, flatten(found)) for loss, sums, found in out]


def test_the_loss_is_the_weighted_sum_over_the_whole_batchs_denominators(gradients):
    """Catches weights in the wrong place, means over the part instead of the whole batch, and an
    epsilon forgotten or misplaced."""
    (joint, sums, joint_gradient), (mlm, _, mlm_gradient), (rtd, _, rtd_gradient) = gradients
    masked, valid = sums["masked"], sums["valid"]
    assert mlm == pytest.approx(sums["mlm_loss"] / (masked + 1e-6), rel=1e-6)
    assert rtd == pytest.approx(sums["disc_loss"] / (valid + 1e-6), rel=1e-6)
    assert joint == pytest.approx((mlm + 50 * rtd) / 2, rel=1e-6)
    for name, found in joint_gradient.items():
        expected = (mlm_gradient[name] + 50 * rtd_gradient[name]) / 2
        assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max()), name


def test_no_gradient_flows_through_the_samples(gradients):
    """Catches a straight-through or soft sample: the detection loss leaves the generator alone, the
    masked-LM loss the discriminator, and both reach the shared embeddings."""
    _, (_, _, mlm), (_, _, rtd) = gradients
    for name in mlm:
        net = name.partition("/")[0].partition("_")[0]
        for found, own in ((mlm[name], "generator"), (rtd[name], "discriminator")):
            # Adding a constant to all keys changes no softmax, so their bias has no gradient.
            if net in ("embeddings", own) and not name.endswith("key/bias"):
                assert np.abs(found).max() > 0, name
            elif net not in ("embeddings", own):
                assert np.all(found == 0), name


def test_padded_vocabulary_has_no_gradient(gradients):
    """Catches padded ids that are learned."""
    for _, _, found in gradients:
        assert np.all(found["embeddings/word"][VOCAB:] == 0)
        assert np.all(found["generator_head/bias"][VOCAB:] == 0)


def test_uniform_generator(make_objective, batch, keys, random_params):
    """Catches a generator that still learns or is drawn from, and a loss other than ln V."""
    objective = make_objective(uniform_generator=True)

    @jax.jit
    def run(params):
        corrupted = objective.corrupt(jax.tree.map(jnp.asarray, batch), keys["mask"])
        totals = objective.totals(corrupted)
        step = jnp.zeros((), jnp.int32)
        grad = jax.value_and_grad(objective.loss, has_aux=True)
        return grad(params, corrupted, totals, keys, step, {})

    (_, sums), gradient = jax.device_get(run(random_params(objective)))
    values = objective.metrics(sums)
    assert values["mlm_loss"] == pytest.approx(np.log(VOCAB), rel=1e-6)
    assert values["generator_entropy"] == pytest.approx(np.log(VOCAB), rel=1e-6)
    assert values["mlm_accuracy"] == pytest.approx(1 / VOCAB, rel=1e-6)
    for name, found in flatten(gradient).items():
        if name.startswith("generator"):
            assert np.all(found == 0), name
    assert np.abs(gradient["embeddings"]["word"]).max() > 0


def test_disallow_correct_replaces_every_chosen_token(make_objective, evaluated):
    """Catches an option that is read and not passed on."""
    out = evaluated(make_objective(disallow_correct=True))
    assert out["sums"]["sampled_correct"] == 0
    assert out["sums"]["replaced"] == out["sums"]["masked"]


def test_temperature_reaches_the_samples_alone(make_objective, evaluated, plain):
    """Catches a temperature that also changes the loss: cold samples are the most likely ids."""
    out = evaluated(make_objective(temperature=1e-4))
    assert out["sums"]["sampled_correct"] == out["sums"]["mlm_correct"]
    assert out["sums"]["mlm_loss"] == pytest.approx(float(plain["sums"]["mlm_loss"]), rel=1e-6)
    assert out["sums"]["entropy"] == pytest.approx(float(plain["sums"]["entropy"]), rel=1e-6)
    assert not np.array_equal(out["ids"], plain["ids"])


def test_evaluation_has_no_dropout(make_objective, evaluated, plain):
    """Catches held-out numbers with dropout in them."""
    dropping = make_objective(model={"dropout": 0.5, "attention_dropout": 0.5})
    out = evaluated(dropping)
    assert np.array_equal(out["ids"], plain["ids"])
    assert np.abs(out["score"] - plain["score"]).max() < 1e-5


def test_the_networks_drop_independently(make_objective, batch, keys, random_params, monkeypatch):
    """Catches one key for both: the discriminator would drop what the generator dropped."""
    objective = make_objective(model={"dropout": 0.1, "attention_dropout": 0.1})
    params = random_params(objective)
    seen: list = []

    def recorded(x, rate, noise):
        seen.append(tuple(noise))
        return x

    monkeypatch.setattr(noise_ops, "dropout", recorded)

    def sites(params):
        corrupted = objective.corrupt(jax.tree.map(jnp.asarray, batch), keys["mask"])
        totals = objective.totals(corrupted)
        objective.loss(params, corrupted, totals, keys, jnp.zeros((), jnp.int32), {})
        return seen

    drawn = np.array(jax.jit(sites)(params))  # [sites, 2, B]
    assert len(drawn) == 8
    pairs = drawn.transpose(0, 2, 1).reshape(-1, 2)
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_metrics_are_the_documented_ones(make_objective, plain):
    """Catches a metric lost or renamed: readers of metrics.jsonl rely on the names."""
    values = make_objective().metrics(plain["sums"])
    assert set(values) == {
        "loss",
        "mlm_loss",
        "mlm_accuracy",
        "sampled_accuracy",
        "generator_entropy",
        "disc_loss",
        "disc_accuracy",
        "disc_auc",
        "disc_precision",
        "disc_recall",
        "replaced_fraction",
    }
    assert values["loss"] == pytest.approx(values["mlm_loss"] + 50 * values["disc_loss"])
    assert values["replaced_fraction"] == pytest.approx(plain["label"].sum() / 58)
