"""Scores of classes, numbers and entities: hand-worked cases and independent implementations."""

import math
import random

import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.spec import UserError
from electra_jax.tasks import metrics
from electra_jax.tasks.examples import ChoiceExample, TagExample, TextExample
from electra_jax.tasks.known import catalog
from electra_jax.tasks.tags import Span


def texts(labels):
    return [TextExample(str(n), "x", None, label) for n, label in enumerate(labels)]


def test_by_hand():
    """Catches F1 of the wrong class, MCC with a sign turned, shares where percents are meant."""
    gold, guess = list("1110010"), list("1010110")  # 3 right of 4 positives, 1 false alarm
    assert metrics.accuracy(gold, guess) == pytest.approx(100 * 5 / 7)
    assert metrics.f1(gold, guess, "1") == pytest.approx(75)
    assert metrics.f1(gold, guess, "0") == pytest.approx(100 * 2 / 3)
    assert metrics.macro_f1(gold, guess) == pytest.approx((75 + 200 / 3) / 2)
    expected = (3 * 2 - 1 * 1) / math.sqrt(4 * 4 * 3 * 3)
    assert metrics.mcc(gold, guess) == pytest.approx(100 * expected)


def test_one_class_only():
    """Catches a division by zero, or NaN in the results, for a model that says one thing."""
    assert metrics.mcc(list("0110"), list("0000")) == 0
    assert metrics.f1(list("0110"), list("0000"), "1") == 0
    assert metrics.pearson([1, 2, 3], [2, 2, 2]) == 0
    assert metrics.spearman([1, 2, 3], [2, 2, 2]) == 0


def test_correlations_by_hand():
    """Catches Pearson and Spearman exchanged, and equal values ranked by chance."""
    a, b = [1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 100.0]
    assert metrics.spearman(a, b) == pytest.approx(100)
    mean_a, mean_b = 2.5, 28.5
    above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    below = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    assert metrics.pearson(a, b) == pytest.approx(100 * above / math.sqrt(below))
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    assert metrics.spearman([0, 1, 1, 5], a) == pytest.approx(100 * 4.5 / math.sqrt(4.5 * 5))
    assert metrics.mse([1, 2], [2, 4]) == 2.5


def test_relations_do_not_count_the_negative_class():
    """Catches TACRED's score raised by getting no_relation right."""
    gold, guess = ["a", "none", "none", "b"], ["a", "none", "a", "none"]
    assert metrics.micro_f1(gold, guess, "none") == pytest.approx(50)  # 1 of 2 found, 1 of 2 there
    assert metrics.micro_f1(["none"], ["none"], "none") == 0


def test_entities_by_hand():
    """Catches partial matches that count, types that are not told apart, tags that begin with I- lost."""
    gold = [["I-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "I-ORG", "O", "O"]]
    guess = [["I-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "O", "O", "I-LOC"]]
    found = metrics.entities(gold, guess)
    assert (found["right"], found["found"], found["there"]) == (1, 4, 3)
    assert found["precision"] == pytest.approx(25)
    assert found["recall"] == pytest.approx(100 / 3)
    assert found["f1"] == pytest.approx(200 / 7)
    assert found["accuracy"] == pytest.approx(100 * 5 / 8)
    assert found["types"]["PER"]["f1"] == 100
    assert found["types"]["LOC"] == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "right": 0, "found": 1, "there": 1
    }  # fmt: skip


def test_entities_against_seqeval():
    """Catches any difference from an independent implementation on random tags of any scheme."""
    from seqeval import metrics as seqeval

    rng = random.Random(3)
    kinds = ["O", "O", "B-X", "I-X", "B-Y", "I-Y"]
    gold = [rng.choices(kinds, k=rng.randint(1, 12)) for _ in range(300)]
    guess = [[t if rng.random() < 0.7 else rng.choice(kinds) for t in row] for row in gold]
    found = metrics.entities(gold, guess)
    assert found["precision"] == pytest.approx(100 * seqeval.precision_score(gold, guess))
    assert found["recall"] == pytest.approx(100 * seqeval.recall_score(gold, guess))
    assert found["f1"] == pytest.approx(100 * seqeval.f1_score(gold, guess))
    assert found["accuracy"] == pytest.approx(100 * seqeval.accuracy_score(gold, guess))
    by_type = seqeval.classification_report(gold, guess, output_dict=True)
    for kind, said in found["types"].items():
        assert said["f1"] == pytest.approx(100 * by_type[kind]["f1-score"])


def test_scores_of_tasks():
    """Catches a task that reports other metrics than its own."""
    said = kinds.score(catalog.get("cola"), texts("0110"), list("0111"))
    assert set(said) == {"mcc", "accuracy"} and said["accuracy"] == 75
    said = kinds.score(catalog.get("mrpc"), texts("0110"), list("0111"))
    assert said["f1"] == pytest.approx(80)
    said = kinds.score(catalog.get("stsb"), texts([1.0, 2.0, 4.0]), [0.0, 1.0, 2.0])
    assert said["spearman"] == pytest.approx(100)
    assert said["corr"] == pytest.approx((said["pearson"] + said["spearman"]) / 2)
    choices = [ChoiceExample("0", "x", ("a", "b"), 1), ChoiceExample("1", "x", ("a", "b"), 0)]
    assert kinds.score(catalog.get("swag"), choices, [1, 1]) == {"accuracy": 50}
    sentence = [TagExample("0", ("a", "b"), ("B-PER", "O"))]
    assert kinds.score(catalog.get("ner"), sentence, [("B-PER", "O")])["f1"] == 100
    with pytest.raises(UserError, match="sentence 0: found 1 tags for 2 words"):
        kinds.score(catalog.get("ner"), sentence, [("B-PER",)])
    with pytest.raises(UserError, match="1 predictions for 4 examples"):
        kinds.score(catalog.get("cola"), texts("0110"), ["0"])


def test_cluener_official_by_hand():
    """Catches positions that count, a surface counted twice, overlaps lost, types weighed by size."""
    task = catalog.get("cluener")
    spans = (Span("name", 0, 2), Span("name", 3, 5), Span("game", 0, 5))
    words = tuple("ab,ab")
    gold = [TagExample("0", words, ("O",) * 5, spans), TagExample("1", ("x", "y"), ("B-book", "O"))]
    found = [{("name", "ab"), ("game", "ab,ab"), ("scene", "ab")}, {("book", "xy")}]
    assert metrics.cluener_official(task, gold, found) == pytest.approx(20)  # name, game of ten
    assert metrics.cluener_official(
        task, gold, [{("name", "ab")}, {("book", "x"), ("book", "y")}]
    ) == (pytest.approx((100 + 100 * 2 / 3) / 10))
    said = kinds.score(task, gold, [("B-name", "I-name", "O", "O", "O"), ("B-book", "O")])
    assert said["cluener_official"] == pytest.approx(20) and said["f1"] == pytest.approx(200 / 3)


def test_bioes_is_read_as_it_means():
    """Catches neighbours of one type joined, as conlleval does, which knows no S- (docs/tasks.md)."""
    gold = [["S-PER", "S-PER", "B-LOC", "E-LOC", "B-LOC", "E-LOC"]]
    found = metrics.entities(gold, [["B-PER", "B-PER", "B-LOC", "I-LOC", "B-LOC", "I-LOC"]])
    assert found["f1"] == 100 and found["there"] == 4
