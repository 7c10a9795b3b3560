"""Electric: loss and every gradient against PyTorch, what its towers see, and what its numbers count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context
from electra_jax.model.tokens import Tokens
from electra_jax.model.towers import Towers
from electra_jax.spec import UserError

pytestmark = pytest.mark.usefixtures("as_in_a_run")
VOCAB, RATE = 40, 0.3
LIMIT = 5e-5  # of a tensor's largest gradient; a mistake is a thousand times as far
MODERN = {
    "family": "modern",
    "types": 1,
    "embedding": 16,
    "generator_size": 1.0,
    "local_attention": 4,
    "layers": 2,
}


@pytest.fixture(scope="module")
def packed(batch):
    """The batch, whose first row holds two documents."""
    docs = batch["docs"].copy()
    docs[0, 9:] = 2
    return batch | {"docs": docs}


@pytest.fixture(scope="module")
def found(make_objective, packed, keys, random_params):
    objective = make_objective("electric")

    @jax.jit
    def run(params):
        corrupted = objective.prepare(jax.tree.map(jnp.asarray, packed), keys)
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


def shifted(x, docs, by):
    """At every place the row of its neighbour, zeros where that is of another document or nothing."""
    out = x * 0
    for row in range(x.shape[0]):
        for at in range(x.shape[1]):
            if 0 <= at - by < x.shape[1] and docs[row, at - by] == docs[row, at]:
                out[row, at] = x[row, at - by]
    return out


@pytest.mark.torch
def test_loss_and_every_gradient_are_pytorchs(there, found):
    """Catches labels by difference, a gradient through log q, odds turned round, a tower that sees its token, a loss
    of the cloze model at the chosen positions alone, other documents seen."""
    _, params, corrupted, _, tokens, loss, gradient = found
    import torch

    p, b = there.leaves(flatten(params)), there.rows(corrupted)
    towers = [
        shifted(there.hidden(p, "embeddings", name, 1, b["ids"], b, after), b["docs"], after)
        for name, after in (("generator_rightward", 1), ("generator_leftward", -1))
    ]
    log_p = there.words(p, "embeddings", "generator_head", torch.cat(towers, -1), VOCAB)
    candidate = (b["docs"] > 0) & ~torch.isin(b["ids"], torch.tensor([0, 2, 3, 4]))
    cloze = there.loss_of(log_p, b["ids"])[candidate].sum() / (candidate.sum() + 1e-6)
    fake = torch.tensor(tokens["ids"]).long()
    _, noise = there.spliced(b, there.at_chosen(b, fake))
    h = there.hidden(p, "embeddings", "discriminator", 2, fake, b)
    log_q = -there.loss_of(log_p.detach(), fake)
    logit = there.detection(p, "discriminator_head", h) + log_q + np.log(RATE / (1 - RATE))
    lost = torch.nn.functional.binary_cross_entropy_with_logits(
        logit, noise.double(), reduction="none"
    )
    valid = b["docs"] > 0
    theirs = cloze + 50 * lost[valid].sum() / (valid.sum() + 1e-6)
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=2e-6)
    there_gradient = there.gradients(p)
    assert gradient.keys() == there_gradient.keys()
    # Key biases move nothing: their gradients are rounding.
    floor = 1e-2 * max(np.abs(g).max() for g in there_gradient.values())
    for path, g in there_gradient.items():
        assert np.abs(gradient[path] - g).max() <= LIMIT * max(np.abs(g).max(), floor), path


def test_every_parameter_learns(found):
    """Catches a tower that is not trained."""
    for path, g in found[-1].items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, path


def test_what_is_counted(found):
    """Catches an accuracy of the cloze model by the chosen positions, and energies of text that count the noise."""
    objective, _, corrupted, sums, tokens, *_ = found
    valid, ids = corrupted["docs"] > 0, corrupted["ids"]
    candidates = valid & ~np.isin(ids, [0, 2, 3, 4])
    assert sums["masked"] == candidates.sum() > 2 * sums["replaced"]
    assert sums["replaced"] == corrupted["weights"].sum() == tokens["label"].sum()
    assert sums["valid"] == valid.sum()
    values = objective.metrics(sums)
    assert values["loss"] == pytest.approx(values["mlm_loss"] + 50 * values["disc_loss"])
    assert values["energy_text"] != values["energy_noise"]
    # A chosen token is noise, also where the sample is the token.
    unchanged = tokens["ids"] == ids
    assert (tokens["label"][unchanged] > 0).sum() == sums["replaced"] - (~unchanged).sum()


@pytest.mark.parametrize("model", [None, MODERN], ids=["electra", "modern"])
def test_a_place_is_predicted_by_all_others_of_its_document(
    make_objective, packed, random_params, model
):
    """Catches a tower that sees the token it predicts, or another document's, or half of its own."""
    objective = make_objective("electric", model)
    params, tokens = random_params(objective), Tokens.of(packed)

    @jax.jit
    def cloze(ids):
        asked = tokens._replace(ids=ids)
        return Towers(objective.dims).apply({"params": params}, asked, method=Towers.cloze)[0]

    before = np.asarray(cloze(packed["ids"]))
    ids = packed["ids"].copy()
    ids[0, 5] = ids[0, 5] % 30 + 7
    moved = np.abs(np.asarray(cloze(ids)) - before).max(axis=-1)
    assert (moved[1:] == 0).all() and moved[0, 5] == 0 and (moved[0, 9:] == 0).all()
    if model is None:  # a window of the other's lower layers hides what is far
        assert (np.delete(moved[0, :9], 5) > 0).all()
    else:
        assert moved[0, 4] > 0 and moved[0, 6] > 0


def test_the_odds_are_those_of_the_share_at_this_step(make_objective, packed, keys, random_params):
    """Catches a falling mask rate in whose first steps the energies learn what the odds leave out."""
    objective = make_objective("electric", mask_prob_first=0.6, mask_prob_steps=10)
    params = random_params(objective)

    @jax.jit
    def score(batch):
        context = Context(params, batch, {}, keys, jnp.int32(0), {})
        return objective.evaluate(context)[1]["score"]

    corrupted = objective.prepare(jax.tree.map(jnp.asarray, packed), keys)
    later = score(corrupted | {"step": jnp.full(6, 5, jnp.int32)}) - score(corrupted)
    expected = np.log(0.45 / 0.55) - np.log(0.3 / 0.7)
    np.testing.assert_allclose(later, np.full((6, 16), expected), atol=1e-4)


def test_other_tyings_are_refused(make_objective):
    """Catches one network that would be asked for what it has seen."""
    with pytest.raises(UserError, match="model.tying=all is not for objective.name=electric; set"):
        make_objective("electric", {"tying": "all"})
    make_objective("electric", {"tying": "none"})
