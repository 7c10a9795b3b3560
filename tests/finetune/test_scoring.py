"""What a head says, as files: names of classes, probabilities of every kind of task."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.scores import scoring
from electra_jax.spec import UserError
from electra_jax.tasks.examples import ChoiceExample, TagExample, TextExample
from electra_jax.tasks.known import catalog


def data(name, labels=()):
    return SimpleNamespace(task=catalog.get(name), labels=labels, head=None)


def test_classes_have_names(tmp_path):
    """Catches 0 and 1 that a reader has to look up, and a column that breaks reading the file back."""
    split = SimpleNamespace(examples=[TextExample("7", "x"), TextExample("9", "y")])
    said = {"logits": np.log(np.array([[0.25, 0.75], [0.9, 0.1]]))}
    scoring.write_file(data("cola", ("0", "1")), split, said, tmp_path / "p.tsv", True)
    assert (tmp_path / "p.tsv").read_text() == (
        "index\tprediction\tname\tp_0\tp_1\n"
        "7\t1\tacceptable\t0.250000\t0.750000\n9\t0\tunacceptable\t0.900000\t0.100000\n"
    )
    scoring.write_file(data("mnli", ("entailment", "neutral")), split, said, tmp_path / "q.tsv")
    assert (tmp_path / "q.tsv").read_text().startswith("index\tprediction\n7\tneutral\n")


def test_choices(tmp_path):
    """Catches probabilities of choices that are lost, since choices have no names."""
    split = SimpleNamespace(examples=[ChoiceExample("0", "c", ("a", "b"))])
    said = {"logits": np.array([[0.0, np.log(3.0)]])}
    scoring.write_file(data("swag"), split, said, tmp_path / "p.tsv", True)
    assert (tmp_path / "p.tsv").read_text().splitlines()[1] == "0\t1\t0.250000\t0.750000"


def test_tags_over_several_rows(tmp_path):
    """Catches words given the outputs of other tokens where a sentence goes on in a second row."""
    features = SimpleNamespace(words=[np.array([1, 2]), np.array([1])], example=[0, 0])
    rows = SimpleNamespace(begin=np.array([0, 4, 7]))
    example = TagExample("s", ("a", "b", "c"))
    split = SimpleNamespace(examples=[example], features=features, rows=rows)
    shares = np.full((7, 2), 0.5)
    shares[[1, 2, 5]] = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]
    path = tmp_path / "p.jsonl"
    scoring.write_file(data("ner", ("O", "B-PER")), split, {"logits": np.log(shares)}, path, True)
    (found,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert found["tags"] == ["O", "B-PER", "O"] and found["classes"] == ["O", "B-PER"]
    assert found["probabilities"] == [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]


def test_numbers_keep_every_digit(tmp_path):
    """Catches rounding that makes ties: `score` then gives another rank correlation than finetune."""
    split = SimpleNamespace(examples=[TextExample("0", "x"), TextExample("1", "x")])
    said = {"logits": np.array([[0.5], [0.50000001]])}
    scoring.write_file(data("stsb"), split, said, tmp_path / "p.tsv")
    first, second = (tmp_path / "p.tsv").read_text().split()[3::2]
    assert float(first) != float(second)


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [("stsb", "a.tsv", "has no probability"), ("ner", "a.conll", "give --output a.jsonl")],
)
def test_probabilities_that_cannot_be(name, path, said):
    """Catches minutes of predicting before a refusal."""
    with pytest.raises(UserError, match=said):
        kinds.get(catalog.get(name).kind).check_probabilities(catalog.get(name), path)
