"""Relations: where the marker words go."""

import json

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks.files.relationfiles import MARKERS, Relations, mark
from electra_jax.tasks.files.wanted import Wanted


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "Ann met Bob.", "head": [0, 3], "tail": [8, 11]}, "@ Ann @ met # Bob # ."),
        ({"text": "Ann met Bob.", "head": [8, 11], "tail": [0, 3]}, "# Ann # met @ Bob @ ."),
        ({"tokens": ["Ann", "met", "Bob"], "head": [0, 1], "tail": [2, 3]}, "@ Ann @ met # Bob #"),
        (
            {
                "token": ["Ann", "met", "Bob"],
                "subj_start": 2,
                "subj_end": 2,
                "obj_start": 0,
                "obj_end": 0,
            },
            "# Ann # met @ Bob @",
        ),
        (
            {"text": "Ann met Bob", "h": {"pos": [0, 3]}, "t": {"pos": [8, 11]}},
            "@ Ann @ met # Bob #",
        ),
    ],
    ids=["characters", "turned round", "tokens", "TACRED", "OpenNRE"],
)
def test_layouts(made, row, expected):
    """Catches head and tail mixed up, or an end taken for the character after or before it."""
    path = made("a.jsonl", json.dumps({**row, "relation": "met"}))
    example = Relations().read(path, Wanted())[0]
    assert " ".join(example.text.split()) == expected
    assert example.label == "met"


def test_one_inside_the_other():
    """Catches markers that cross where one entity lies in the other or they touch."""
    words = ["New", "York", "City", "mayor"]
    assert mark(words, " ", (0, 4), (0, 3), MARKERS) == "@ # New York City # mayor @"
    assert mark(words, " ", (0, 4), (1, 4), MARKERS) == "@ New # York City mayor # @"
    assert mark(words, " ", (0, 3), (3, 4), MARKERS) == "@ New York City @ # mayor #"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"head": [0, 3], "tail": [8, 99]}, r"'tail' is \[8, 99\]; expected .* 11 characters"),
        ({"head": [3, 3], "tail": [8, 11]}, "'head' is"),
        ({"head": "Ann", "tail": [8, 11]}, "'head' is 'Ann'"),
        ({"tail": [8, 11]}, "no column 'head'"),
    ],
)
def test_wrong_spans(made, row, said):
    """Catches a span outside of the text."""
    path = made("a.jsonl", json.dumps({"text": "Ann met Bob", "label": "x", **row}))
    with pytest.raises(UserError, match=said):
        Relations().read(path, Wanted())
