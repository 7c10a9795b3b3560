"""Losses and statistics: stable, counted without padding, AUC exact or within its bound."""

import jax
import numpy as np
import pytest
from scipy import special

from electra_jax.objective import losses

draw = np.random.default_rng(0)


def brute_auc(score: np.ndarray, positive: np.ndarray) -> float:
    pairs = score[positive][:, None] - score[~positive][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_cross_entropy_is_stable():
    """Catches log(sigmoid(x)), which is infinite from -104 on, and its NaN gradient."""
    logit = np.array([-1e4, -100, -3, -1e-4, 0, 1e-4, 3, 100, 1e4], np.float32)
    for label in (0.0, 1.0):
        exact = np.logaddexp(0, logit.astype(np.float64)) - label * logit
        labels = np.full_like(logit, label)
        value = np.asarray(losses.binary_cross_entropy(logit, labels))
        assert np.allclose(value, exact, rtol=1e-6, atol=1e-7)
        gradient = jax.grad(lambda x, y: losses.binary_cross_entropy(x, y).sum())(logit, labels)
        exact = special.expit(logit.astype(np.float64)) - label
        assert np.allclose(gradient, exact, atol=1e-6)


@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_exact_auc_counts_pairs(decimals: int):
    """Catches ties that count whole or not at all."""
    positive = draw.random(500) < 0.2
    score = np.round(draw.normal(size=500) + positive, decimals).astype(np.float32)
    assert losses.exact_auc(score, positive) == pytest.approx(brute_auc(score, positive), abs=1e-12)


def test_auc_of_one_class_is_nan():
    """Catches a division by zero, or a perfect score for nothing."""
    assert np.isnan(losses.exact_auc(np.arange(3.0), np.zeros(3, bool)))
    assert np.isnan(losses.exact_auc(np.arange(3.0), np.ones(3, bool)))
    assert np.isnan(losses.binned_auc(np.ones((2, 255)), 0, 5)[0])


@pytest.fixture(scope="module")
def tokens() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and validity; pads have extreme logits and one has a label."""
    valid = draw.random((40, 50)) < 0.8
    label = ((draw.random((40, 50)) < 0.15) & valid).astype(np.float32)
    logit = (draw.normal(size=(40, 50)) * 1.5 + 2 * label - 1).astype(np.float32)
    logit[~valid] = 1e3
    return logit, label, valid


def test_detection_sums_leave_padding_out(tokens):
    """Catches pads counted as originals, a threshold of a half on logits, precision and recall
    exchanged."""
    logit, label, valid = tokens
    sums = jax.device_get(jax.jit(losses.detection_sums)(logit, label, valid))
    found = losses.detection_metrics(sums)
    z, y = logit[valid], label[valid] > 0
    called = z > 0
    exact = np.logaddexp(0, z.astype(np.float64)) - y * z
    assert sums["valid"] == valid.sum()
    assert found["disc_loss"] == pytest.approx(exact.mean(), rel=1e-5)
    assert found["disc_accuracy"] == pytest.approx((called == y).mean(), rel=1e-6)
    assert found["disc_precision"] == pytest.approx(y[called].mean(), rel=1e-6)
    assert found["disc_recall"] == pytest.approx(called[y].mean(), rel=1e-6)
    assert found["replaced_fraction"] == pytest.approx(y.mean(), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 100.0])
def test_binned_auc_is_within_its_bound(tokens, scale: float):
    """Catches a bound that is no bound, and bins too coarse to be of use where logits begin."""
    logit, label, valid = tokens
    logit = (logit * np.float32(scale)).astype(np.float32)
    sums = jax.device_get(jax.jit(losses.detection_sums)(logit, label, valid))
    value, bound = losses.binned_auc(
        sums["disc_above"], sums["valid"] - sums["replaced"], sums["replaced"]
    )
    exact = brute_auc(logit[valid], label[valid] > 0)
    assert abs(value - exact) <= bound + 1e-6
    assert bound < (0.01 if 0.1 <= scale <= 1 else 0.2)


def test_nothing_counted_is_nan_not_a_crash():
    """Catches a division by zero when no token was called replaced."""
    assert np.isnan(losses.ratio(np.float32(0), np.float32(0)))
    assert losses.ratio(np.float32(1), np.float32(4)) == 0.25
