"""What counting tokens achieves, beside a model's figures: the numbers it has to beat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jax
import numpy as np

from electra_jax.data import baselines, loader
from electra_jax.data.baselines import MODELS, Counted
from electra_jax.data.ngrams import Ngrams, Pairs, Rows, candidates, left_neighbours
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.objective.corrupt import guess
from electra_jax.objective.losses import exact_auc
from electra_jax.objective.protocol import Metric, Objective
from electra_jax.pretrain.program import Program

MASK_PROB = 0.15  # the rate at which the synthetic corruption below selects tokens


def baselines_of(
    data: Prepared | str | Path,
    objective: Objective,
    rows: int | None = None,
    counted: Counted | None = None,
) -> dict[str, float]:
    """What counting reaches at the objective on the first `rows` held-out rows (None: all), as mlm_loss_unigram, ...

    `counted` spares opening what the folder holds. Empty where the data have no held-out rows, and for an objective
    that has no figure of counting beside its own.
    """
    data = data if isinstance(data, Prepared) else open_prepared(data)
    counted = counted or baselines.of(data)
    if counted is None:
        return {}
    return objective.beside_counting(counted.over(data.rows["valid"] if rows is None else rows))


def worse(values: Mapping[str, Any], shown: Sequence[Metric]) -> str | None:
    """A line that names the figures by which this model is worse than counting tokens; None when there are none.

    `shown` are the objective's metrics, which say what is better.
    """
    found = []
    for figure, _, higher in shown:
        if higher is None or figure not in values:
            continue
        model = values[figure] if _finite(values[figure]) else -np.inf if higher else np.inf
        beside = {name: values.get(f"{figure}_{name}") for name in MODELS}
        told = ", ".join(
            f"{name} {value:.3f}"
            for name, value in beside.items()
            if _finite(value) and (value > model if higher else value < model)
        )
        if told:
            value = f"{model:.3f}" if np.isfinite(model) else "not finite"
            found.append(f"{figure} {value} ({told})")
    if not found:
        return None
    return f"note: worse than counting tokens: {'; '.join(found)}; see Baselines in docs/metrics.md"


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and bool(np.isfinite(value))


def language_model(
    model: Ngrams, held_out: Pairs, visible: float = 0.15
) -> dict[str, dict[str, float]]:
    """Loss (nats a token) and accuracy of guessing the tokens that masking chooses.

    Masking chooses uniformly, so the mean over all candidates is the expectation over all masks,
    without their noise. `visible` is the share of chosen positions that masking leaves as they are
    (and none are made random): whoever knows that copies them, and the `_copying` numbers do.
    """
    n, token, left = held_out.count / held_out.total, held_out.token, held_out.left
    top = int(model.unigram_V.argmax())
    guesses = {
        "unigram": (model.log_unigram(token), token == top),
        "bigram": (model.log_bigram(left, token), token == model.best_after()[left]),
    }
    found = {}
    for name, (log_p, hit) in guesses.items():
        loss, accuracy = float(-(n * log_p).sum()), float(n[hit].sum())
        copying = guess(loss, accuracy, (1 - visible, visible, 0.0))
        found[name] = {
            "mlm_loss": loss,
            "mlm_accuracy": accuracy,
            "mlm_loss_copying": copying[0],
            "mlm_accuracy_copying": copying[1],
        }
    return found


def detector(
    model: Ngrams, docs: np.ndarray, fake: np.ndarray, replaced: np.ndarray
) -> dict[str, float]:
    """AUC of low probability as a sign that a token was replaced, over every token but padding.

    docs, fake: int [n, L], document numbers and corrupted tokens; replaced: bool [n, L]. Special
    tokens get probability 1: nobody needs a model to know that they are never replaced.
    """
    present = docs > 0
    free = np.isin(fake, model.special)
    left = left_neighbours(fake, docs, model.special[0])
    scores = {"unigram": -model.log_unigram(fake), "bigram": -model.log_bigram(left, fake)}
    return {
        name: exact_auc(np.where(free, 0.0, score)[present], replaced[present])
        for name, score in scores.items()
    }


class Replacements(NamedTuple):
    """What a run's generator put into held-out rows; arrays [n, L], empty rows left out."""

    docs: np.ndarray  # 0 for padding
    fake: np.ndarray  # token ids
    replaced: np.ndarray  # bool
    score: np.ndarray  # the discriminator's logit


def replacements(
    compiled: Program, params: Any, carried: Any, source: loader.Rows, batch: int, batches: int
) -> Replacements:
    """The replacements of held-out evaluation itself: its rows, masks and samples."""
    parts = []
    for number, rows in enumerate(
        loader.fixed_batches(source, batch, batches, compiled.batch_sharding)
    ):
        _, tokens = compiled.eval_step(params, carried, rows, compiled.scalar(number * batch))
        found = jax.device_get((rows["docs"], tokens["ids"], tokens["label"], tokens["score"]))
        parts.append(found)
    docs, fake, label, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    there = docs.any(axis=1)
    return Replacements(docs[there], fake[there], label[there] > 0, score[there])


def corrupt(model: Ngrams, rows: Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(fake [n, L], replaced [n, L]): tokens drawn from the unigram model at 15% of the positions.

    A draw that hits the true token counts as original, as in ELECTRA.
    """
    rng = np.random.default_rng(seed)
    ids = rows["ids"]
    chosen = candidates(rows, model.special) & (rng.random(ids.shape) < MASK_PROB)
    fake = np.where(chosen, model.sample(rng, ids.shape), ids)
    return fake, fake != ids
