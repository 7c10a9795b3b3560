"""The joint objective: denominators, weights, labels, what gradients reach, the ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import samplers

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


@pytest.mark.parametrize("sampler", ["gumbel", "grouped"])
def test_rows_without_a_token_have_no_probability(
    make_objective, evaluated, random_params, plain, sampler
):
    """Catches a word table with more rows than tokens whose further rows are drawn, or take part in the softmax."""
    objective = make_objective(model={"vocab_rows": 100}, sampler=sampler)
    params = random_params(make_objective())
    bias = params["generator_head"]["bias"].copy()
    bias[VOCAB:] = 1e4  # sure to be drawn, if they could be
    params["generator_head"] = params["generator_head"] | {"bias": bias}
    out = evaluated(objective, params)
    assert out["ids"].max() < VOCAB
    np.testing.assert_allclose(out["sums"]["mlm_loss"], plain["sums"]["mlm_loss"], rtol=1e-5)


def test_denominators(plain):
    """Catches means of row means, [CLS] and [SEP] left out of the tokens, and pads counted in."""
    b = plain["batch"]
    assert plain["totals"]["valid"] == (b["docs"] > 0).sum() == 16 + 16 + 12 + 9 + 5
    # round(0.3 x length) of each row, at most four; the empty row has no candidate.
    assert plain["totals"]["masked"] == 4 + 4 + 4 + 3 + 2
    assert plain["sums"]["valid"] == plain["totals"]["valid"]
    assert plain["sums"]["masked"] == plain["totals"]["masked"]


def parts_of(objective, batch, keys, part):
    """The corrupted rows `part`, and the totals of the whole batch."""
    whole = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
    return {name: x[part] for name, x in whole.items()}, objective.totals(whole)


@pytest.fixture(scope="module")
def losses(make_objective, batch, keys, random_params):
    """(loss, sums) with dropout: of all rows, of the even ones, of the odd ones."""
    objective = make_objective(model={"dropout": 0.2, "attention_dropout": 0.2})

    def three(params):
        out = []
        for part in (slice(None), slice(0, None, 2), slice(1, None, 2)):
            rows, totals = parts_of(objective, batch, keys, part)
            out.append(objective.loss(Context(params, rows, totals, keys, jnp.int32(0), {})))
        return out

    return jax.device_get(jax.jit(three)(random_params(objective)))


def test_the_loss_is_the_weighted_sum_over_the_denominators(losses):
    """Catches weights in the wrong place, and an epsilon forgotten or misplaced."""
    loss, sums = losses[0]
    mlm, rtd = sums["mlm_loss"] / (17 + 1e-6), sums["disc_loss"] / (58 + 1e-6)
    assert loss == pytest.approx(mlm + 50 * rtd, rel=1e-6)


def test_parts_of_a_batch_add_up_to_it(losses):
    """Catches means over the part instead of the whole batch, and dropout or samples that depend on
    the place within the part."""
    (whole, sums), (even, some), (odd, others) = losses
    assert whole == pytest.approx(even + odd, rel=1e-6)
    for name, value in sums.items():
        assert np.allclose(value, some[name] + others[name], rtol=1e-5), name


@pytest.fixture(scope="module")
def gradients(make_objective, batch, keys, random_params):
    """Gradients by path of the masked-LM loss alone and of the detection loss alone."""
    objectives = [
        make_objective(generator_weight=g, discriminator_weight=d)
        for g, d in ((1.0, 0.0), (0.0, 1.0))
    ]

    def both(params):
        out = []
        for objective in objectives:
            rows, totals = parts_of(objective, batch, keys, slice(None))
            rest = (rows, totals, keys, jnp.int32(0), {})
            grad = jax.grad(lambda p, o=objective, r=rest: o.loss(Context(p, *r)), has_aux=True)
            out.append(grad(params)[0])
        return out

    return [flatten(x) for x in jax.device_get(jax.jit(both)(random_params(objectives[0])))]


def test_no_gradient_flows_through_the_samples(gradients):
    """Catches a straight-through or soft sample: the detection loss leaves the generator alone, the
    masked-LM loss the discriminator, and both reach the shared embeddings."""
    mlm, rtd = gradients
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
    for found in gradients:
        assert np.all(found["embeddings/word"][VOCAB:] == 0)
        assert np.all(found["generator_head/bias"][VOCAB:] == 0)


def test_uniform_generator(make_objective, batch, keys, random_params):
    """Catches a generator that still learns or is drawn from, and a loss other than ln V."""
    objective = make_objective(uniform_generator=True)

    @jax.jit
    def run(params):
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
        totals = objective.totals(corrupted)
        grad = jax.value_and_grad(
            lambda p: objective.loss(Context(p, corrupted, totals, keys, jnp.int32(0), {})),
            has_aux=True,
        )
        return grad(params)

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


def test_grouped_sampler_reaches_the_samples_alone(make_objective, evaluated, plain, monkeypatch):
    """Catches a sampler that is read and not passed on: the same loss, other draws."""
    monkeypatch.setattr(samplers, "GROUP", 8)  # this vocabulary is smaller than a group
    out = evaluated(make_objective(sampler="grouped"))
    assert out["sums"]["mlm_loss"] == pytest.approx(float(plain["sums"]["mlm_loss"]), rel=1e-6)
    assert not np.array_equal(out["ids"], plain["ids"])


def test_evaluation_has_no_dropout(make_objective, batch, keys, random_params):
    """Catches held-out numbers with dropout in them: the program is that of a model without."""
    texts = []
    for rate in (0.0, 0.5):
        objective = make_objective(model={"dropout": rate, "attention_dropout": rate})
        rows, _ = parts_of(objective, batch, keys, slice(None))
        run = jax.jit(
            lambda params, o=objective, r=rows: o.evaluate(
                Context(params, r, o.totals(r), keys, jnp.int32(0), {})
            )
        )
        texts.append(run.lower(random_params(objective)).as_text())
    assert texts[0] == texts[1]


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
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
        totals = objective.totals(corrupted)
        objective.loss(Context(params, corrupted, totals, keys, jnp.int32(0), {}))
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
