"""Texts and pairs with a class or a score, as rows of a table."""

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import custom
from electra_jax.tasks import task as tasks
from electra_jax.tasks.files.textfiles import Table
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.known import catalog

TABLE = Table(("text",), ("pair",), id=("id",), rename={"yes": "1"}, no_gold=("-",))
CLASSES = Wanted(labels=("0", "1"))


def read(path, wanted=CLASSES, table=TABLE):
    return table.read(path, wanted)


def test_labels_renamed_and_left_out(made):
    """Catches labels taken as written, and rows without a gold label trained on or dropped silently."""
    wanted = Wanted(labels=("0", "1"))
    text = "id\ttext\tpair\tlabel\n7\ta\tb\tyes\n8\tc\td\t-\n9\te\tf\t0\n"
    found = read(made("a.tsv", text), wanted)
    assert [(e.id, e.text, e.pair, e.label) for e in found] == [
        ("7", "a", "b", "1"),
        ("9", "e", "f", "0"),
    ]
    assert "1 rows without a gold label" in wanted.notes[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a\tb\t2", r"a\.tsv:2: unknown label '2'.* Labels: 0, 1"),
        ("a\tb\t", r"a\.tsv:2: the label is empty"),
        ("\tb\t1", r"a\.tsv:2: the text 'text' is empty"),
        ("a\t \t1", r"a\.tsv:2: the text 'pair' is empty"),
    ],
)
def test_a_wrong_row(made, row, said):
    """Catches an unknown label or an empty text that is trained on."""
    with pytest.raises(UserError, match=said):
        read(made("a.tsv", f"text\tpair\tlabel\n{row}\n"))


def test_a_missing_column(made):
    """Catches a KeyError instead of the columns that are there."""
    with pytest.raises(UserError, match=r"no column 'pair'.* Found: 'text', 'label'"):
        read(made("a.tsv", "text\tlabel\na\t1\n"))
    with pytest.raises(UserError, match="no column 'label'"):
        read(made("b.tsv", "text\tpair\na\tb\n"))


def test_a_test_file_needs_no_labels(made):
    """Catches test files refused for want of labels, and labels of another task taken for ours."""
    wanted = Wanted(labelled=False, labels=("0", "1"))
    assert read(made("a.tsv", "text\tpair\na\tb\n"), wanted)[0].label is None
    text = "text\tpair\tlabel\na\tb\t-1\nc\td\tyes\ne\tf\tmaybe\n"
    assert [e.label for e in read(made("b.tsv", text), wanted)] == [None, "1", None]
    assert "1 labels are none" in wanted.notes[0]


def test_lenient_tables(made):
    """Catches rows lost from a test file, whose predictions must be complete."""
    table = Table(("text",), ("pair",), lenient=True)
    text = "text\tpair\tlabel\na\tb\t1\n\tb\t1\nc\n"
    wanted = Wanted(labels=("0", "1"))
    assert len(table.read(made("a.tsv", text), wanted)) == 1
    assert "2 rows left out" in wanted.notes[0]
    rows = table.read(made("b.tsv", "text\tpair\na\tb\n\tb\n"), Wanted(labelled=False))
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("5.1", r":2: label 5\.1 is outside the task's range, 0 to 5"),
        ("-0.1", "outside"),
        ("high", "'high' is not a number"),
        ("nan", "not finite"),
    ],
)
def test_scores(made, label, said):
    """Catches a regression label outside the range, or one that is none."""
    text = f"index\tsentence1\tsentence2\tscore\n0\ta\tb\t{label}\n"
    with pytest.raises(UserError, match=said):
        catalog.get("stsb").read(made("dev.tsv", text), "dev")


def test_json_values(made):
    """Catches booleans and numbers of JSON that are not the labels they stand for."""
    text = '{"question": "q", "passage": "p", "answer": true}\n'
    assert catalog.get("boolq").read(made("train.jsonl", text), "train")[0].label == "true"
    text = '{"text": 3, "label": "1"}\n'
    with pytest.raises(UserError, match=r":1: 'text' is a int; expected a text"):
        Table(("text",)).read(made("x.jsonl", text), CLASSES)


def test_a_labelled_file_of_a_task_whose_test_files_differ(made):
    """Catches CoLA's dev file, which has no header, refused by predict, and its test file read as dev."""
    cola = catalog.get("cola")
    dev = made("dev.tsv", "gj04\t1\t\tThe sailors rode the breeze.\n")
    test = made("test.tsv", "index\tsentence\n0\tBill whistled.\n")
    assert [(e.text[:3], e.label) for e in cola.read(dev, "predict")] == [("The", "1")]
    assert [(e.id, e.label) for e in cola.read(test, "predict")] == [("0", None)]


def test_a_file_that_is_labelled_in_part(made, capsys):
    """Catches a file without scores of which nobody says why, and texts that are row numbers."""
    task = tasks.with_labels(custom.make("classify"), ("a", "b"))
    path = made("a.tsv", "text\tlabel\n1\ta\n2\t\n3\tc\n")
    task.read(path, "test")
    said = capsys.readouterr().err
    assert "1 labels are none of the task's and taken as absent, the first: " in said
    assert "a.tsv:4: 'c'" in said and "2 of 3 examples have no label, so it is not scored" in said
    assert "every text is a number, such as 1" in said


def test_a_text_for_a_label_is_shown_in_short(made):
    """Catches a message of ten thousand characters, and an object refused without a word on paths."""
    with pytest.raises(UserError, match=r"label 'x{57}\.\.\.' is not a number"):
        Wanted(regress=True).label("here", "x" * 10_000)
    with pytest.raises(UserError, match="'text' is an object; name the path"):
        Wanted().text({"a": "b"}, "here", "text")
