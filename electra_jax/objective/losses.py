"""Losses and statistics as (sums, counts): the device adds, the host divides."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data.baselines import Counted

EPSILON = 1e-6  # added to the loss's denominators by the original

# Thresholds on the logit for the training AUC: dense near 0, where every logit starts, and out to +-30.
AUC_THRESHOLDS = np.sinh(np.linspace(-1, 1, 255) * np.arcsinh(30 / 0.02)).astype(
    np.float32
) * np.float32(0.02)


def totals(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Chosen positions and tokens that are not padding, float32: the denominators of the two networks' losses."""
    return {
        "masked": jnp.sum(batch["weights"]),
        "valid": jnp.sum(batch["docs"] > 0).astype(jnp.float32),
    }


def binary_cross_entropy(logit: jax.Array, label: jax.Array) -> jax.Array:
    """Sigmoid cross-entropy per element for labels 0 and 1, float32, stable for large logits."""
    # Not max(x, 0) - x y + log1p(exp(-|x|)): its pieces add to a wrong slope at exactly 0.
    return jax.nn.softplus(logit.astype(jnp.float32) * (1 - 2 * label))


def masked_sum(x: jax.Array, weight: jax.Array) -> jax.Array:
    """sum(x * weight), float32."""
    return jnp.sum(x.astype(jnp.float32) * weight.astype(jnp.float32))


def detection_sums(
    logit_BxL: jax.Array, replaced_BxL: jax.Array, valid_BxL: jax.Array
) -> dict[str, jax.Array]:
    """Counts behind accuracy, precision, recall, the replaced fraction and the binned AUC of the discriminator.

    A token is called replaced when its logit is above 0. `disc_above` [2, T] counts the original and the replaced
    tokens above each of AUC_THRESHOLDS.
    """
    called_BxL = logit_BxL > 0
    above_BxLxT = logit_BxL[..., None] > AUC_THRESHOLDS
    groups = ((replaced_BxL == 0) & valid_BxL, (replaced_BxL > 0) & valid_BxL)
    return {
        "disc_loss": masked_sum(binary_cross_entropy(logit_BxL, replaced_BxL), valid_BxL),
        "disc_correct": masked_sum(called_BxL == (replaced_BxL > 0), valid_BxL),
        "true_positives": masked_sum(called_BxL, groups[1]),
        "called": masked_sum(called_BxL, valid_BxL),
        "replaced": masked_sum(replaced_BxL, valid_BxL),
        "valid": jnp.sum(valid_BxL.astype(jnp.float32)),
        "disc_above": jnp.stack(
            [jnp.sum(above_BxLxT & g[..., None], axis=(0, 1)) for g in groups]
        ).astype(jnp.float32),
    }


def generator_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """mlm_loss (nats), mlm_accuracy, sampled_accuracy, generator_entropy (nats), per chosen position."""
    masked = sums["masked"]
    return {
        "mlm_loss": ratio(sums["mlm_loss"], masked),
        "mlm_accuracy": ratio(sums["mlm_correct"], masked),
        "sampled_accuracy": ratio(sums["sampled_correct"], masked),
        "generator_entropy": ratio(sums["entropy"], masked),
    }


def detection_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The discriminator's metrics over all tokens but padding; AUC from the thresholds (see `binned_auc`)."""
    replaced, originals = sums["replaced"], sums["valid"] - sums["replaced"]
    return {
        "disc_loss": ratio(sums["disc_loss"], sums["valid"]),
        "disc_accuracy": ratio(sums["disc_correct"], sums["valid"]),
        "disc_auc": binned_auc(np.asarray(sums["disc_above"]), float(originals), float(replaced))[
            0
        ],
        "disc_precision": ratio(sums["true_positives"], sums["called"]),
        "disc_recall": ratio(sums["true_positives"], replaced),
        "replaced_fraction": ratio(replaced, sums["valid"]),
    }


def detection_ranks(tokens: Mapping[str, np.ndarray], counted: Counted | None) -> dict[str, float]:
    """The rank-exact AUC of the discriminator, and that of a low unigram probability as a sign of replacement.

    `tokens`: the `score`, `label` and `ids` of every token that counts.
    """
    replaced = tokens["label"] > 0
    found = {"disc_auc": exact_auc(tokens["score"], replaced)}
    if counted is not None:
        unigram = -counted.log_unigram_V[tokens["ids"]]
        found["disc_auc_unigram"] = exact_auc(unigram, replaced)
    return found


def no_weight(section: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[Sequence[str], str]]:
    """The clash of a config section `objective` whose weights, these keys, are all 0; nothing where one is not."""
    if [section.get(key) for key in keys] != [0] * len(keys):
        return []
    named = " and ".join(f"objective.{key}" for key in keys)
    return [(keys, f"{named} are both 0: nothing would be learned")]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """numerator / denominator; NaN when there was nothing to count."""
    return float(numerator) / float(denominator) if float(denominator) else float("nan")


def binned_auc(above_2xT: np.ndarray, negatives: float, positives: float) -> tuple[float, float]:
    """(AUC by the trapezoid rule over the thresholds, bound on its distance from the exact AUC).

    Within a bin the order is unknown, so the error is at most half the share of (positive, negative) pairs that
    fall into the same bin.
    """
    if not negatives or not positives:
        return float("nan"), float("nan")
    false_T, true_T = above_2xT[0] / float(negatives), above_2xT[1] / float(positives)
    x = np.concatenate([[1.0], false_T, [0.0]])
    y = np.concatenate([[1.0], true_T, [0.0]])
    width, height = -np.diff(x), -np.diff(y)
    return float(np.sum(width * (y[1:] + y[:-1]) / 2)), float(np.sum(width * height) / 2)


def exact_auc(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney), ties counted half; NaN when a class is empty."""
    positives = int(positive_N.sum())
    negatives = positive_N.size - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = mean_rank[inverse_N][positive_N.astype(bool)].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))
