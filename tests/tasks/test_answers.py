"""Decoding: which spans may be answers, and what their text is."""

import itertools

import numpy as np
import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.tasks import answers
from electra_jax.tasks.answers import Candidates
from electra_jax.tasks.examples import QaExample
from electra_jax.tasks.known import catalog

CONTEXT = "john smith was born in new york in the year 1895 and not in 1943"


@pytest.fixture
def question(speller):
    example = QaExample("q", "When?", CONTEXT, (("1895", CONTEXT.index("1895")),))
    return example, kinds.features(catalog.get("squad2"), [example], speller, 20, doc_stride=4)


def test_all_pairs_by_brute_force(question):
    """Catches a span that is too long, ends before it begins, lies in the question, or is scored wrongly."""
    example, made = question
    rng = np.random.default_rng(0)
    logits = [(rng.normal(size=n), rng.normal(size=n)) for n in made.lengths]
    found = answers.decode(
        [example],
        made.windows,
        [answers.from_logits(start, end, 50) for start, end in logits],
        relative=True,
        max_answer=3,
    )
    expected = {}
    for row, (start, end) in enumerate(logits):
        first, places = made.windows.first[row], made.windows.characters[row]
        for a, b in itertools.product(range(len(places)), repeat=2):
            if a <= b < a + 3 and made.windows.best[row][a]:
                text = CONTEXT[places[a][0] : places[b][1]]
                value = start[first + a] + end[first + b]
                expected[text] = max(value, expected.get(text, -np.inf))
    best = max(expected, key=expected.get)
    assert found.texts == {"q": best}
    order = sorted(expected.values(), reverse=True)[:20]
    assert [entry["score"] for entry in found.n_best["q"]] == pytest.approx(order)
    assert sum(entry["probability"] for entry in found.n_best["q"]) == pytest.approx(1)
    null = min(start[0] + end[0] for start, end in logits)
    assert found.null_odds["q"] == pytest.approx(null - expected[best])


def test_beam(question):
    """Catches ends given to the wrong starts."""
    example, made = question
    first = int(made.windows.first[0])
    found = answers.from_beam(
        np.array([first, first + 1]),
        np.array([-1.0, -3.0]),
        np.array([[first, first + 1], [first + 1, first + 2]]),
        np.array([[-2.0, -0.5], [-0.1, -9.0]]),
        null=-4,
    )
    empty = Candidates(np.array([], int), np.array([], int), np.array([]), -1.0)
    rest = [empty] * (len(made) - 1)
    decoded = answers.decode([example], made.windows, [found, *rest], relative=False)
    assert [entry["text"] for entry in decoded.n_best["q"]][:3] == ["john smith", "john", "smith"]
    assert decoded.null_odds == {"q": -4.0}
    assert decoded.with_threshold(answers.NULL_THRESHOLD) == {"q": "john smith"}
    assert decoded.with_threshold(-5) == {"q": ""}


def test_no_candidate(question):
    """Catches a question that drops out of the predictions because nothing could be its answer."""
    example, made = question
    none = [Candidates(np.array([0]), np.array([0]), np.array([9.0]), 1.0)] * len(made)
    found = answers.decode([example], made.windows, none, relative=True)
    assert found.texts == {"q": ""}
    assert found.n_best["q"] == [{"text": "", "probability": 1.0, "score": 0.0}]
