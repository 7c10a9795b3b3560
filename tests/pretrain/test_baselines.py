"""The counting baselines, against values worked out by hand and by brute force."""

import itertools
from typing import Any

import numpy as np
import pytest

from electra_jax.data import ngrams
from electra_jax.objective.electra import ElectraObjective
from electra_jax.pretrain import baselines
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError

SPECIAL = (0, 2, 3, 4)  # [PAD], [CLS], [SEP], [MASK]; 1 is [UNK]
VOCAB = 12


class Memory:
    """Rows held in memory, with the interface of a prepared split."""

    def __init__(self, ids, docs=None):
        self._ids = np.asarray(ids, np.int32)
        self._docs = (self._ids > 0).astype(np.int32) if docs is None else np.asarray(docs)

    def __len__(self):
        return len(self._ids)

    def rows(self, numbers):
        return {"ids": self._ids[numbers], "docs": self._docs[numbers]}


def corpus(n=200, seed=0):
    """Rows [CLS] w .. w [SEP] [PAD], in which a token is likely to be followed by its successor."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, 10), np.int32)
    for row in rows:
        row[0], row[8] = 2, 3
        row[1] = rng.integers(5, VOCAB)
        for i in range(2, 8):
            row[i] = 5 + (row[i - 1] - 4) % 7 if rng.random() < 0.8 else rng.integers(5, VOCAB)
    return Memory(rows)


def test_only_maskable_tokens_are_counted_and_never_across_documents():
    """Catches specials among the candidates, and a left neighbour from another document."""
    source = Memory([[2, 5, 6, 3, 7, 0]], [[1, 1, 1, 1, 2, 0]])
    pairs = ngrams.count(source, np.array([0]), VOCAB, SPECIAL)
    assert list(zip(pairs.left, pairs.token, pairs.count, strict=True)) == [
        (0, 7, 1),  # begins its document, so its neighbour is [PAD]
        (2, 5, 1),
        (5, 6, 1),
    ]


def test_both_models_are_probability_distributions():
    """Catches smoothing over ids that cannot occur, and weights that do not sum to one."""
    model = ngrams.fit(corpus(), VOCAB, SPECIAL, None)
    tokens = np.arange(VOCAB)
    assert np.exp(model.log_unigram(tokens)).sum() == pytest.approx(1.0)
    assert np.exp(model.log_unigram(np.array(SPECIAL))).sum() == 0.0
    for left in (2, 5, 9):  # a context never seen has no counts to mix in
        total = np.exp(model.log_bigram(np.full(VOCAB, left), tokens)).sum()
        assert total == pytest.approx(1.0)


def test_the_loss_is_that_of_a_loop_over_the_tokens():
    """Catches counts that are not weighted, or a bigram looked up under the wrong pair."""
    model, held_out = ngrams.fit(corpus(), VOCAB, SPECIAL, None), corpus(20, seed=1)
    numbers = np.arange(20)
    found = baselines.language_model(model, ngrams.count(held_out, numbers, VOCAB, SPECIAL))
    best, unigram, bigram, hits = model.best_after(), [], [], []
    for row in held_out.rows(numbers)["ids"]:
        for left, token in itertools.pairwise(row[:8]):
            one, other = np.array([left]), np.array([token])
            unigram.append(-model.log_unigram(other)[0])
            bigram.append(-model.log_bigram(one, other)[0])
            hits.append(best[left] == token)
    assert found["unigram"]["mlm_loss"] == pytest.approx(np.mean(unigram))
    assert found["bigram"]["mlm_loss"] == pytest.approx(np.mean(bigram))
    assert found["bigram"]["mlm_accuracy"] == pytest.approx(np.mean(hits))
    assert found["bigram"]["mlm_loss"] < found["unigram"]["mlm_loss"] - 0.5
    assert found["bigram"]["mlm_loss_copying"] == pytest.approx(0.85 * np.mean(bigram))
    assert found["bigram"]["mlm_accuracy_copying"] == pytest.approx(0.15 + 0.85 * np.mean(hits))


def test_the_best_next_token_is_the_most_probable_one():
    """Catches a wrong end of a context's run of pairs."""
    model, tokens = ngrams.fit(corpus(), VOCAB, SPECIAL, None), np.arange(VOCAB)
    best = model.best_after()
    for left in range(VOCAB):
        log_p = model.log_bigram(np.full(VOCAB, left), tokens)
        assert log_p[best[left]] == pytest.approx(log_p.max())


def test_a_detector_sees_what_does_not_follow():
    """Catches a detector with its sign turned, and replacements in padding or special tokens."""
    source = corpus()
    model, rows = ngrams.fit(source, VOCAB, SPECIAL, None), source.rows(np.arange(len(source)))
    fake, replaced = baselines.corrupt(model, rows, seed=0)
    assert not replaced[~ngrams.candidates(rows, SPECIAL)].any()
    assert 0.05 < replaced[rows["docs"] > 0].mean() < 0.15
    found = baselines.detector(model, rows["docs"], fake, replaced)
    assert found["bigram"] > found["unigram"] + 0.1 and found["bigram"] > 0.75


def test_merging_in_parts_gives_the_same_counts(monkeypatch):
    """Catches pairs lost or counted twice when a large corpus is merged on the way."""
    source, numbers = corpus(), np.arange(200)
    whole = ngrams.count(source, numbers, VOCAB, SPECIAL)
    monkeypatch.setattr(ngrams, "READ_ROWS", 7)
    monkeypatch.setattr(ngrams, "MERGE_PAIRS", 30)
    parts = ngrams.count(source, numbers, VOCAB, SPECIAL)
    for field in ("left", "token", "count"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(parts, field))


def test_a_corpus_too_small_to_count_is_refused():
    """Catches a division by zero where a sentence would do."""
    with pytest.raises(UserError, match="two training rows"):
        ngrams.fit(corpus(1), VOCAB, SPECIAL, None)


def test_a_pair_never_seen_stays_possible():
    """Catches a weight that is tuned to 1 by few rows: a held-out pair then has an infinite loss."""
    rows = np.array([[2, 5, 6, 3]] * 40)
    model = ngrams.fit(Memory(rows), VOCAB, SPECIAL, None)
    assert np.isfinite(model.log_bigram(np.array([5]), np.array([7]))).all()


def test_copying_what_is_shown():
    """Catches a baseline that copies random tokens as if they were shown, or shown ones not at all."""
    assert baselines.guess(4.0, 0.1, (0.85, 0.15, 0.0)) == pytest.approx((3.4, 0.235))
    assert baselines.guess(4.0, 0.1, (1.0, 0.0, 0.0)) == (4.0, 0.1)
    loss, accuracy = baselines.guess(4.0, 0.1, (0.8, 0.1, 0.1))
    assert loss == pytest.approx(0.8 * 4 + 0.1 * np.log(2) + 0.1 * (4 + np.log(2)))
    assert accuracy == pytest.approx(0.8 * 0.1 + 0.1)


def worse(values: dict[str, Any]) -> str | None:
    return baselines.worse(values, ElectraObjective.shown)


def test_a_model_that_learned_nothing_is_named():
    """Catches a run that passes every station although counting tokens does better."""
    values = {"mlm_loss": 6.0, "mlm_loss_unigram": 5.5, "mlm_loss_bigram": 4.5}
    values |= {"disc_auc": 0.501, "disc_auc_unigram": 0.55}
    told = worse(values)
    assert "mlm_loss 6.000 (unigram 5.500, bigram 4.500); disc_auc 0.501 (unigram 0.550)" in told
    assert "mlm_loss 5.000 (bigram 4.500); see" in worse(
        values | {"mlm_loss": 5.0, "disc_auc": 0.6}
    )
    assert worse(values | {"mlm_loss": 4.0, "disc_auc": 0.6}) is None
    assert worse({"mlm_loss": 9.0}) is None  # nothing to compare with
    for nothing in (None, float("nan")):  # as files and loops have it
        assert "mlm_loss not finite (uni" in worse(values | {"mlm_loss": nothing})
        assert worse({"disc_auc": nothing, "disc_auc_unigram": nothing}) is None


def test_of_a_folder(prepared, prepared_folder, config):
    """Catches figures of other rows than those asked for, and a generator compared where none is trained."""

    def objective(*overrides: str) -> Any:
        return run_spec(config(*overrides).to_dict()).make_objective(prepared)

    found = baselines.baselines_of(prepared_folder, objective(), 16)
    assert found == baselines.baselines_of(prepared, objective(), 16)
    assert set(found) == {
        f"mlm_{x}_{y}" for x in ("loss", "accuracy") for y in ("unigram", "bigram")
    }
    assert baselines.baselines_of(prepared, objective()) != found
    assert baselines.baselines_of(prepared, objective("objective.uniform_generator=true")) == {}
