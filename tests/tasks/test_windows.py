"""Windows over long contexts: what they cover, where answers lie, which window a token belongs to."""

import numpy as np
import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.tasks import windows
from electra_jax.tasks.examples import QaExample
from electra_jax.tasks.known import catalog

CONTEXT = "John Smith (1895-1943) was born in New York, in the year 1895."


def built(tokenizer, examples, max_len=64, **more):
    return kinds.features(catalog.get("squad2"), examples, tokenizer, max_len, **more)


def span(example, made, row):
    """The text between the row's start and end."""
    places, first = made.windows.characters[row], made.windows.first[row]
    start, end = made.targets["start"][row] - first, made.targets["end"][row] - first
    return example.context[places[start][0] : places[end][1]]


def test_a_window_holds_all_of_the_answer_or_nothing(speller):
    """Catches an answer at the very end of a window lost, or cut off, for any place it may have."""
    context = " ".join("cat" for _ in range(40))
    for at in range(30):
        example = QaExample("q", "Where?", context, (("cat cat", 4 * at),))
        made = built(speller, [example], 20, doc_stride=5)
        for row in range(len(made)):
            places = made.windows.characters[row]
            inside = places[0][0] <= 4 * at and 4 * at + 7 <= places[-1][1]
            assert inside == (made.targets["start"][row] > 0)
            assert made.targets["end"][row] == (made.targets["start"][row] + 1 if inside else 0)


@pytest.mark.parametrize("answer", ["1895", "John Smith", "New York", "the year 1895", "1943"])
def test_targets_are_the_answer(speller, answer):
    """Catches a target one token off, or one that takes the bracket beside the answer with it."""
    example = QaExample("q", "When was he born?", CONTEXT, ((answer, CONTEXT.index(answer)),))
    made = built(speller, [example])
    assert len(made) == 1
    assert span(example, made, 0) == answer
    row = speller.tokens(made.ids[0])
    assert row[:2] == ["[CLS]", "when"] and row[-1] == "[SEP]"
    assert row.count("[SEP]") == 2
    assert made.types[0].sum() == len(row) - row.index("[SEP]") - 1


def test_windows_overlap(speller):
    """Catches tokens that no window has, a window too long, an answer in a window that lacks it."""
    context = " ".join(f"cat {number}" for number in range(60))
    answer = ("cat 40", context.index("cat 40"))
    example = QaExample("q", "Where?", context, (answer,))
    made = built(speller, [example], 40, doc_stride=10)
    assert made.lengths.max() == 40
    holds = 0
    covered = set()
    for row in range(len(made)):
        places = made.windows.characters[row]
        covered |= {tuple(place) for place in places}
        inside = places[0][0] <= answer[1] and answer[1] + len(answer[0]) <= places[-1][1]
        assert inside == (made.targets["start"][row] > 0)
        holds += inside
        if inside:
            assert span(example, made, row) == "cat 40"
    assert holds > 1 and len(made) > holds
    assert covered == {tuple(p) for p in speller.encode_offsets([context])[0][1]}


def test_every_token_has_one_best_window(speller):
    """Catches answers that count twice or nowhere; the rule by hand is BERT's."""
    assert windows.cut(50, 20, 10) == [(0, 20), (10, 30), (20, 40), (30, 50)]
    spans = windows.cut(50, 20, 11)  # token 15 is as well off in the first two
    for token in range(50):
        scores = [
            min(token - start, stop - 1 - token) + 0.01 * (stop - start)
            if start <= token < stop
            else -1
            for start, stop in spans
        ]
        assert windows._owners(spans, 50)[token] == int(np.argmax(scores))
    made = built(speller, [QaExample("q", "Where?", "cat " * 100)], 40, doc_stride=8)
    assert sum(best.sum() for best in made.windows.best) == 100


def test_impossible_and_unknown(speller):
    """Catches questions without a known place trained on as if [CLS] were right."""
    impossible = QaExample("a", "Where?", CONTEXT, (), True)
    unknown = QaExample("b", "Where?", CONTEXT)
    lost = QaExample("c", "Where?", CONTEXT, (("1900", -1),))
    made = built(speller, [impossible, unknown, lost])
    assert made.targets["start"].tolist() == [0, -1, -1]
    assert made.targets["impossible"].tolist() == [1, 0, 0]
    made = built(speller, [impossible, unknown, lost], training=True)
    assert made.example.tolist() == [0]


def test_long_questions_are_cut(speller):
    """Catches a question that leaves no room for the context."""
    example = QaExample("q", "cat " * 100, CONTEXT)
    made = built(speller, [example], 128)
    assert made.windows.first[0] == windows.MAX_QUESTION + 2
    made = built(speller, [example], 16)
    assert made.lengths.max() <= 16
    assert all(len(places) for places in made.windows.characters)
