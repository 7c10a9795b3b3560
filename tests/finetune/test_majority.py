"""What one answer reaches: of every kind of task, worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from electra_jax.finetune.scores import majority
from electra_jax.tasks.examples import ChoiceExample, QaExample, TagExample, TextExample
from electra_jax.tasks.features import IGNORE
from electra_jax.tasks.known import catalog


def data(name, labels, **trained):
    rows = SimpleNamespace(labels={key: np.array(value) for key, value in trained.items()})
    return SimpleNamespace(task=catalog.get(name), labels=labels, train=rows)


@pytest.mark.parametrize(
    ("given", "examples", "answer", "told", "metric", "value"),
    [
        (
            data("sst2", ("0", "1"), label=[1, 0, 1]),
            [TextExample(str(n), "x", None, label) for n, label in enumerate("1000")],
            "1",
            "'positive'",
            "accuracy",
            25,
        ),
        (
            data("stsb", (), label=[0.2, 0.6]),
            [TextExample(str(n), "x", "y", score) for n, score in enumerate((1.0, 4.0))],
            2.0,
            "2, the mean",
            "spearman",
            0,
        ),
        (
            data("ner", ("O", "B-PER", "I-PER"), label=[IGNORE, 1, 1, 0]),
            [TagExample("0", ("a", "b", "c"), ("O", "O", "B-PER"))],
            "O",
            "no entity",
            "accuracy",
            200 / 3,
        ),
        (
            data("swag", (), label=[3, 3, 0]),
            [ChoiceExample(str(n), "c", ("a", "b"), label) for n, label in enumerate((3, 1))],
            3,
            "choice 3",
            "accuracy",
            50,
        ),
        (
            data("squad2", ()),
            [QaExample("a", "?", "cat", (), True), QaExample("b", "?", "cat", (("cat", 0),))],
            "",
            "no answer",
            "f1",
            50,
        ),
    ],
)
def test_by_hand(given, examples, answer, told, metric, value):
    """Catches the majority of the scored file, a mean that is still scaled, types that are counted."""
    said = majority.answer(given)
    assert said == pytest.approx(answer) if isinstance(answer, float) else said == answer
    assert majority.describe(given.task, said) == told
    assert majority.scores(given.task, said, examples)[metric] == pytest.approx(value)


def test_tags_without_an_outside():
    """Catches parts of speech all called by the first class, or padding counted as a tag."""
    given = data("ner", ("DT", "NN"), label=[IGNORE, IGNORE, 1, 1, 0])
    assert majority.answer(given) == "NN"
