"""Scores of predictions by the official definitions, in percent (mse in the task's own unit)."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from electra_jax.spec import UserError, unknown_name
from electra_jax.tasks import qa_metrics, tags
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.task import Task

Labels = Sequence[str]
Scores = dict[str, Any]
Surface = tuple[str, str]  # an entity's type and text

OFFICIAL = "cluener_official"


def of_answers(
    task: Task,
    references: Sequence[Any],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    null_threshold: float = qa_metrics.NULL_THRESHOLD,
) -> Scores:
    """The scores of texts by question id. `null_odds` and `null_threshold`: see `qa_metrics.squad2`.

    Keys: those of the task's metrics, "total", and what the official script reports.
    """
    golds = {example.id: example.golds for example in references}
    if task.metrics[0] == "squad2":
        return qa_metrics.squad2(golds, predictions, null_odds, null_threshold)
    return _QA[task.metrics[0]](golds, predictions)


def of_tags(
    task: Task, references: Sequence[TagExample], predictions: Sequence[Sequence[str]]
) -> Scores:
    """The scores of as many tags as words: of entities, with those by "types", or the accuracy of the tags."""
    _check_count(task, references, predictions)
    gold: list[Any] = [example.tags for example in references]
    for example, tagged in zip(references, predictions, strict=True):
        if len(tagged) != len(example.words):
            raise UserError(
                f"sentence {example.id}: found {len(tagged)} tags for {len(example.words)} words"
            )
    if task.metrics[0] != "entities":
        return {"accuracy": token_accuracy(gold, predictions)}
    found = entities(gold, predictions)
    if OFFICIAL in task.metrics:
        guesses = [
            surfaces(example.words, tags.spans(tagged))
            for example, tagged in zip(references, predictions, strict=True)
        ]
        found[OFFICIAL] = cluener_official(task, references, guesses)
    return found


def of_labels(task: Task, references: Sequence[Any], predictions: Sequence[Any]) -> Scores:
    """The task's metrics of a class, a number or a choice an example."""
    _check_count(task, references, predictions)
    labels = [example.label for example in references]
    return {name: _metric(name)(task, labels, list(predictions)) for name in task.metrics}


def is_score(name: str, value: Any) -> bool:
    """Whether an entry of the scores is one, not a count, a threshold or a table of types."""
    counted = ("total", "missing", "right", "found", "there")
    return isinstance(value, float) and not name.endswith((*counted, "thresh"))


def accuracy(references: Sequence[Any], predictions: Sequence[Any]) -> float:
    """The share that is right."""
    return 100 * float(np.mean([a == b for a, b in zip(references, predictions, strict=True)]))


def f1(references: Labels, predictions: Labels, positive: str) -> float:
    """F1 of the class `positive` (of MRPC and QQP: paraphrase)."""
    return 100 * _sklearn().f1_score(
        np.array(references) == positive, np.array(predictions) == positive, zero_division=0.0
    )


def macro_f1(references: Labels, predictions: Labels) -> float:
    """The mean of the classes' F1, over every class that occurs on either side."""
    return 100 * _sklearn().f1_score(references, predictions, average="macro", zero_division=0.0)


def micro_f1(references: Labels, predictions: Labels, negative: str | None) -> float:
    """F1 over all decisions except for the class `negative` (TACRED's scorer: no_relation)."""
    classes = sorted({*references, *predictions} - {negative})
    if not classes:
        return 0.0
    return 100 * _sklearn().f1_score(
        references, predictions, labels=classes, average="micro", zero_division=0.0
    )


def mcc(references: Labels, predictions: Labels) -> float:
    """Matthews' correlation coefficient; 0 where one side has one class only."""
    return 100 * float(_sklearn().matthews_corrcoef(references, predictions))


def pearson(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side is constant, of which it is not defined."""
    if np.ptp(references) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return 100 * float(_stats().pearsonr(references, predictions).statistic)


def spearman(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 where one is constant."""
    if np.ptp(references) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return 100 * float(_stats().spearmanr(references, predictions).statistic)


def mse(references: Sequence[float], predictions: Sequence[float]) -> float:
    """The mean squared error, in the square of the task's unit."""
    return float(np.mean(np.square(np.subtract(references, predictions))))


def entities(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> Scores:
    """conlleval's precision, recall and F1 of entities, for all and by type, and token accuracy.

    An entity is right when its type and both ends are. Tags of any scheme: see `tags.spans`.
    """
    counts: dict[str, list[int]] = {}  # type -> right, found, there
    for gold, guess in zip(references, predictions, strict=True):
        there, found = set(tags.spans(gold)), set(tags.spans(guess))
        for column, chosen in enumerate((there & found, found, there)):
            for span in chosen:
                counts.setdefault(span.type, [0, 0, 0])[column] += 1
    total = [sum(column) for column in zip([0, 0, 0], *counts.values(), strict=True)]
    return {
        **_prf(total),
        "accuracy": token_accuracy(references, predictions),
        "types": {kind: _prf(count) for kind, count in sorted(counts.items())},
    }


def surfaces(words: Sequence[str], entities: Iterable[tags.Span]) -> set[Surface]:
    """(type, text) of a sentence's entities, each once; of words without blanks between them."""
    return {(kind, "".join(words[start:stop])) for kind, start, stop in entities}


def cluener_official(
    task: Task, references: Sequence[TagExample], predictions: Sequence[Set[Surface]]
) -> float:
    """CLUENER2020's score: the mean F1 of the task's types of entity.

    An entity of a sentence is its type and text: it counts once, wherever and however often it
    stands there; entities may overlap. A type that nobody has or finds counts 0 in the mean; types
    that the task does not have do not count.
    """
    counts = {kind: [0, 0, 0] for kind in tags.types(task.labels or ())}
    for example, found in zip(references, predictions, strict=True):
        entities = example.entities
        there = surfaces(
            example.words, tags.spans(example.tags or ()) if entities is None else entities
        )
        for column, chosen in enumerate((there & found, found, there)):
            for kind, _ in chosen:
                if kind in counts:
                    counts[kind][column] += 1
    return float(np.mean([_prf(count)["f1"] for count in counts.values()]))


def token_accuracy(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> float:
    """The share of words whose tag is right."""
    flat = [
        (a, b)
        for gold, guess in zip(references, predictions, strict=True)
        for a, b in zip(gold, guess, strict=True)
    ]
    return 100 * sum(a == b for a, b in flat) / len(flat)


def _prf(count: Sequence[int]) -> dict[str, Any]:
    right, found, there = count
    return {
        "precision": 100 * right / found if found else 0.0,
        "recall": 100 * right / there if there else 0.0,
        "f1": 200 * right / (found + there) if right else 0.0,
        "right": right,
        "found": found,
        "there": there,
    }


METRICS: dict[str, Callable[[Task, Any, Any], float]] = {
    "accuracy": lambda _, a, b: accuracy(a, b),
    "f1": lambda task, a, b: f1(a, b, task.positive or ""),
    "macro_f1": lambda _, a, b: macro_f1(a, b),
    "relation_f1": lambda task, a, b: micro_f1(a, b, task.negative),
    "mcc": lambda _, a, b: mcc(a, b),
    "pearson": lambda _, a, b: pearson(a, b),
    "spearman": lambda _, a, b: spearman(a, b),
    "corr": lambda _, a, b: (pearson(a, b) + spearman(a, b)) / 2,
    "mse": lambda _, a, b: mse(a, b),
}


def _metric(name: str) -> Callable[[Task, Any, Any], float]:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


_QA: dict[str, Callable[..., Scores]] = {
    "squad1": qa_metrics.squad1,
    "korquad": qa_metrics.korquad,
    "cmrc": qa_metrics.cmrc,
}


def _check_count(task: Task, references: Sequence[Any], predictions: Sequence[Any]) -> None:
    if len(references) != len(predictions):
        raise UserError(
            f"task {task.name}: {len(predictions)} predictions for {len(references)} examples"
        )
    if not references:
        raise UserError(f"task {task.name}: nothing to score")


def _sklearn() -> Any:
    try:
        from sklearn import metrics
    except ImportError:
        raise UserError(
            "these metrics need scikit-learn: pip install 'electra-jax[finetune]'"
        ) from None
    return metrics


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise UserError("correlations need scipy: pip install 'electra-jax[finetune]'") from None
    return stats
