"""Multiple choice: tables, SWAG's CSV, RACE's folders."""

import json

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import custom
from electra_jax.tasks.files.choicefiles import ChoiceTable
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.known import catalog

SWAG = 'video-id,sent1,sent2,ending0,ending1,ending2,ending3,label\nv,He sat.,Then he,ran,"a, b",c,d,1\n'
RACE = {
    "id": "high1.txt",
    "article": "A cat sat.",
    "questions": ["What sat?", "The _ sat."],
    "options": [["dog", "cat"], ["cat", "mat"]],
    "answers": ["B", "A"],
}


def test_swag(made, tmp_path):
    """Catches the start of the second sentence left out of the choices, or commas taken for borders."""
    made("swag/train.csv", SWAG)
    example = catalog.get("swag").read(tmp_path, "train")[0]
    assert example.context == "He sat."
    assert example.choices == ("Then he ran", "Then he a, b", "Then he c", "Then he d")
    assert example.label == 1


@pytest.mark.parametrize("where", ["data dir", "folder", "lines"])
def test_race(made, tmp_path, where):
    """Catches levels not found, letters not read, gaps not filled."""
    made("RACE/train/high/1.txt", json.dumps(RACE))
    lines = made("race.jsonl", json.dumps(RACE) + "\n")
    path = {"data dir": tmp_path, "folder": tmp_path / "RACE/train", "lines": lines}[where]
    first, second = catalog.get("race").read(path, "train")
    assert (first.choices, first.label) == (("What sat? dog", "What sat? cat"), 1)
    assert (second.choices, second.label) == (("The cat sat.", "The mat sat."), 0)
    assert first.id != second.id


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": ["a"], "label": 0}, "found 1 choices; expected two or more"),
        ({"choices": ["a", "b"], "label": 2}, "label '2' is none of the 2 choices"),
        ({"choices": ["a", "b"], "label": "C"}, "label 'C' is none of the 2 choices"),
        ({"choices": ["a", ""], "label": 0}, "the text 'choice' is empty"),
        ({"choices": ["a", "b"]}, "no column 'label'"),
        ({"label": 1}, "no column 'choices'"),
    ],
)
def test_wrong_rows(made, row, said):
    """Catches a right answer that is no choice."""
    text = json.dumps({"context": "x", **row})
    with pytest.raises(UserError, match=said):
        ChoiceTable().read(made("a.jsonl", text), Wanted())


def test_own_rows(made):
    """Catches labels counted from 1 or given as letters, and examples of different size in one file."""
    rows = [
        {"context": "c", "question": "q", "choices": ["a", "b"], "label": said} for said in (1, "B")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    found = ChoiceTable(first=1).read(made("a.jsonl", text), Wanted())
    assert [(e.choices, e.label) for e in found] == [(("q a", "q b"), 0), (("q a", "q b"), 1)]
    more = text + json.dumps({"context": "c", "choices": ["a", "b", "c"], "label": 0})
    with pytest.raises(UserError, match="example 2 has 3 choices, the first has 2"):
        ChoiceTable().read(made("b.jsonl", more), Wanted())


def test_a_question_that_is_the_context_is_told_once(made):
    """Catches the column named as context taken for the question too, and put before every choice."""
    row = {"question": "Who sat?", "a": "a cat", "b": "a mat", "label": 0}
    path = made("own.jsonl", json.dumps(row) + "\n")
    table = ChoiceTable(context=("question",), choices=("a", "b"), several=True)
    example = table.read(path, Wanted())[0]
    assert (example.context, example.choices) == ("Who sat?", ("a cat", "a mat"))


@pytest.mark.parametrize("label", ["²", "-1", "7" * 5000])
def test_a_label_that_is_no_choice(made, label):
    """Catches a traceback for digits that are no number, and for numbers too long to be one."""
    path = made("a.csv", f"context,one,two,label\nc,a,b,{label}\n")
    with pytest.raises(UserError, match=":2: label .* is none of the 2 choices"):
        custom.make("choice", choices=("one", "two")).read(path, "train")
