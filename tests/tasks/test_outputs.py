"""Predictions as files: official names and headers, and files that do not fit the references."""

import json

import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.spec import UserError
from electra_jax.tasks import custom, outputs, tags
from electra_jax.tasks.answers import Answers
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.known import catalog

# gluebenchmark.com: the names of the files in a submission.
NAMES = ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"]


def test_official_names(tmp_path):
    """Catches a submission that the leaderboard refuses: a file missing, misnamed or misheaded."""
    written = set()
    for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"):
        task = catalog.get(name)
        for split in task.leaderboard.files:
            values = [2.5, 5.3] if task.kind == "regress" else list(task.labels[:2])
            found = kinds.get(task.kind).for_leaderboard(task, values)
            path = outputs.leaderboard(tmp_path, task, split, ["0", "1"], found)
            assert path.read_text().splitlines()[0] == "index\tprediction"
            written.add(path.stem)
    assert written == set(NAMES)
    assert (tmp_path / "MNLI-m.tsv").read_text() == (
        "index\tprediction\n0\tentailment\n1\tneutral\n"
    )
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t2.500000\n1\t5.000000\n"
    assert outputs.leaderboard(tmp_path, catalog.get("sst2"), "dev", [], []) is None


def test_answers(tmp_path):
    """Catches SQuAD files that its scripts cannot read, a threshold that is not applied, and one
    that empties the texts from which the scripts find the best threshold."""
    found = Answers(
        {"q": "ä"}, {"q": [{"text": "ä", "probability": 1.0, "score": 2.0}]}, {"q": 1.5}
    )
    outputs.answers(tmp_path, found)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"q": "ä"}
    assert json.loads((tmp_path / "null_odds.json").read_text()) == {"q": 1.5}
    assert json.loads((tmp_path / "nbest_predictions.json").read_text())["q"][0]["text"] == "ä"
    outputs.answers(tmp_path, found, threshold=1)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"q": "ä"}
    assert json.loads((tmp_path / "thresholded.json").read_text()) == {"q": ""}


def test_tagged(tmp_path, made):
    """Catches columns that conlleval cannot read: a character that is a space, tags in another scheme."""
    examples = [
        TagExample("0", ("a", " ", "b"), ("B-X", "E-X", "O")),
        TagExample("1", ("c",), ("O",)),
    ]
    guesses = [("S-X", "O", "B-X"), ("O",)]
    outputs.tagged(tmp_path / "out.txt", examples, guesses)
    assert (tmp_path / "out.txt").read_text() == "a B-X B-X\n_ I-X O\nb O B-X\n\nc O O\n\n"
    task = custom.make("tag")
    again = task.read(tmp_path / "out.txt", "dev")
    assert [tags.spans(e.tags) for e in again] == [tags.spans(g) for g in guesses]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index\tprediction\n0\ta\n0\tb\n", ":3: a second prediction for id 0"),
        ("index\tprediction\n0\ta\n", "no prediction for 1 of 2 examples, the first is id 1"),
        ("index\tprediction\n0\ta\n1\tb\n7\tb\n", "1 of 3 ids are none of .* the first is 7"),
        ("a\tprediction\n0\ta\n", "no column 'index'"),
        ("index\tx\n0\ta\n", "no column 'prediction'"),
    ],
)
def test_labels_that_do_not_fit(made, text, said):
    """Catches predictions of another file scored, or rows paired by their order."""
    with pytest.raises(UserError, match=said):
        outputs.read_labels(made("p.tsv", text), ["0", "1"])


def test_labels_come_back(tmp_path):
    """Catches a file that we write and cannot read, or one read in the wrong order."""
    outputs.labels(tmp_path / "p.tsv", ["b", "a"], ["x", "y"])
    assert outputs.read_labels(str(tmp_path / "p.tsv"), ["a", "b"]) == ["y", "x"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": "x", "a": "y"}', "a second prediction for question a"),
        ('{"z": "x"}', "1 of 1 ids are none"),
        ('{"a": 3}', "question a has a int; expected a text"),
        ('["a"]', "found a list; expected an object"),
        ('{"a"', "not JSON"),
    ],
)
def test_answers_that_do_not_fit(made, text, said):
    """Catches a JSON file of predictions read as far as Python would: the last of two answers."""
    with pytest.raises(UserError, match=said):
        outputs.read_answers(made("p.json", text), ["a", "b"])


@pytest.mark.parametrize("text", ['{"a":' * 200_000, '{"a": ' + "9" * 10_000 + "}"])
def test_answers_beyond_pythons_limits_are_one_line(made, text):
    """Catches RecursionError, and the limit of digits, as tracebacks."""
    with pytest.raises(UserError, match="nested too deep|too many digits"):
        outputs.read_answers(made("p.json", text), ["a"])
