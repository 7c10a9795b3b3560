"""From scores of tokens to answers: candidates of a window, the best texts of a question.

The rules are BERT's and the original ELECTRA's (finetune/qa/qa_metrics.py): an answer begins where
its token has the most context, ends no earlier, has at most 30 tokens, and never is [CLS].
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from electra_jax.tasks.examples import QaExample
from electra_jax.tasks.windows import Windows

# The original's (google-research/electra, configure_finetuning.py).
N_BEST = 20
MAX_ANSWER = 30
NULL_THRESHOLD = -2.75  # of its answerability classifier, for SQuAD 2.0


class Candidates(NamedTuple):
    """What a head makes of a window: spans of tokens of the row with a score each, best first or not.

    `null`: how much speaks for no answer in this window; more means more.
    """

    start: np.ndarray  # int [n], tokens of the row
    end: np.ndarray  # int [n], the last token
    score: np.ndarray  # float [n]
    null: float


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is predicted for each question, by id.

    `texts`: the best answer that is not empty ("" only where no window had a candidate). `n_best`:
    the best answers with "text", "probability" (of the listed ones) and "score". `null_odds`: how
    much speaks for no answer.
    """

    texts: dict[str, str]
    n_best: dict[str, list[dict[str, Any]]]
    null_odds: dict[str, float]

    def with_threshold(self, threshold: float) -> dict[str, str]:
        """The texts, "" where the odds of no answer are above `threshold`."""
        return {
            key: "" if self.null_odds[key] > threshold else text for key, text in self.texts.items()
        }


def from_logits(start_L: np.ndarray, end_L: np.ndarray, n_best: int = N_BEST) -> Candidates:
    """Candidates of a head with one score a token for the start and one for the end (HF's).

    All pairs of the `n_best` best starts and ends; a span's score is their sum, the null score that
    of [CLS].
    """
    starts = np.argsort(-start_L, kind="stable")[:n_best]
    ends = np.argsort(-end_L, kind="stable")[:n_best]
    start, end = np.repeat(starts, len(ends)), np.tile(ends, len(starts))
    null = float(start_L[0] + end_L[0])
    return Candidates(start, end, start_L[start] + end_L[end], null)


def from_beam(
    starts_K: np.ndarray,
    start_scores_K: np.ndarray,
    ends_KxM: np.ndarray,
    end_scores_KxM: np.ndarray,
    null: float,
) -> Candidates:
    """Candidates of the original's head: the best starts, for each its best ends, log probabilities.

    `null`: the logit of its answerability classifier.
    """
    score = (start_scores_K[:, None] + end_scores_KxM).ravel()
    return Candidates(np.repeat(starts_K, ends_KxM.shape[1]), ends_KxM.ravel(), score, float(null))


def decode(
    examples: Sequence[QaExample],
    windows: Windows,
    candidates: Iterable[Candidates],
    relative: bool,
    n_best: int = N_BEST,
    max_answer: int = MAX_ANSWER,
) -> Answers:
    """The answers to every question, from the candidates of each window, in the windows' order.

    The null score of a question is the least of its windows'. `relative`: its odds are the null
    score less the score of the best answer (heads whose null is a span, as HF's); else they are the
    null score itself (the original's classifier).
    """
    spans: dict[int, list[tuple[float, int, int]]] = {}  # example -> score, characters
    null: dict[int, float] = {}
    for window, found in enumerate(candidates):
        owner = int(windows.example[window])
        null[owner] = min(found.null, null.get(owner, np.inf))
        spans.setdefault(owner, []).extend(_allowed(windows, window, found, max_answer))
    texts: dict[str, str] = {}
    lists: dict[str, list[dict[str, Any]]] = {}
    odds: dict[str, float] = {}
    for number, example in enumerate(examples):
        chosen: dict[str, float] = {}
        for score, start, stop in sorted(spans.get(number, ()), key=lambda span: -span[0]):
            text = example.context[start:stop]
            if len(chosen) < n_best and text not in chosen:
                chosen[text] = score
        texts[example.id] = next(iter(chosen), "")
        lists[example.id] = _n_best(chosen)
        best = next(iter(chosen.values()), 0.0)
        odds[example.id] = float(null.get(number, 0.0) - (best if relative else 0.0))
    return Answers(texts, lists, odds)


def _allowed(
    windows: Windows, number: int, found: Candidates, max_answer: int
) -> list[tuple[float, int, int]]:
    """(score, first character, end) of the candidates that may be answers."""
    first, places = windows.first[number], windows.characters[number]
    start, end = found.start - first, found.end - first
    inside = (start >= 0) & (end >= start) & (end < len(places)) & (end - start < max_answer)
    start, end, score = start[inside], end[inside], found.score[inside]
    best = windows.best[number][start]
    return [
        (float(value), int(places[a, 0]), int(places[b, 1]))
        for value, a, b in zip(score[best], start[best], end[best], strict=True)
    ]


def _n_best(chosen: Mapping[str, float]) -> list[dict[str, Any]]:
    if not chosen:
        return [{"text": "", "probability": 1.0, "score": 0.0}]
    scores = np.array(list(chosen.values()))
    weights = np.exp(scores - scores.max())
    shares = weights / weights.sum()
    return [
        {"text": text, "probability": float(share), "score": float(score)}
        for (text, score), share in zip(chosen.items(), shares, strict=True)
    ]
