"""`electra-jax score`: from two files to JSON."""

import json

import pytest

from electra_jax import cli


def run(capsys, *arguments):
    status = cli.main(["score", *arguments])
    said = capsys.readouterr()
    return status, json.loads(said.out) if status == 0 else said.err, said.err


def test_classes(made, capsys):
    """Catches predictions paired with the wrong rows."""
    gold = made("dev.tsv", "sentence\tlabel\na\t1\nb\t0\nc\t1\nd\t1\n")
    guess = made("p.tsv", "index\tprediction\n3\t1\n0\t1\n1\t1\n2\t1\n")
    status, found, _ = run(capsys, "--task", "sst2", "--references", gold, "--predictions", guess)
    assert status == 0 and found == {"accuracy": 75}
    wrong = made("w.tsv", "index\tprediction\n3\t1\n0\t1\n1\tx\n2\t1\n")
    status, found, _ = run(capsys, "--task", "sst2", "--references", gold, "--predictions", wrong)
    assert status == 2 and "id 1: unknown label 'x'" in found


def test_own_columns(made, capsys):
    """Catches references of the user's own that can be trained on but not scored."""
    gold = made("g.csv", "name,t,y\np,a,red\nq,b,blue\n")
    guess = made("p.tsv", "index\tprediction\np\tred\nq\tred\n")
    flags = ["--task", "classify", "--text", "t", "--label", "y", "--id", "name"]
    status, found, _ = run(capsys, *flags, "--references", gold, "--predictions", guess)
    assert status == 0 and found["accuracy"] == 50


def test_numbers_and_choices(made, capsys):
    """Catches scores outside the range refused in predictions, where they are only bad."""
    head = "index\tsentence1\tsentence2\tscore\n"
    gold = made("dev.tsv", head + "0\ta\tb\t1\n1\ta\tb\t2\n2\ta\tb\t5\n")
    guess = made("p.tsv", "index\tprediction\n0\t-1\n1\t2\n2\t9\n")
    status, found, _ = run(capsys, "--task", "stsb", "--references", gold, "--predictions", guess)
    assert status == 0 and found["spearman"] == 100
    gold = made("c.jsonl", '{"context": "c", "choices": ["a", "b"], "label": 1}\n')
    guess = made("q.tsv", "index\tprediction\n0\t1\n")
    status, found, _ = run(capsys, "--task", "choice", "--references", gold, "--predictions", guess)
    assert status == 0 and found == {"accuracy": 100}


def test_questions(made, capsys):
    """Catches missing predictions that go unsaid, or null odds that are not used."""
    qas = [
        {"id": "a", "question": "?", "answers": [{"text": "cat", "answer_start": 2}]},
        {"id": "b", "question": "?", "answers": [], "is_impossible": True},
    ]
    text = json.dumps({"data": [{"paragraphs": [{"context": "a cat", "qas": qas}]}]})
    gold, odds = made("dev.json", text), made("odds.json", '{"a": -1, "b": 2}')
    guess = made("p.json", '{"a": "the cat", "b": "cat"}')
    files = ["--references", gold, "--predictions", guess]
    assert run(capsys, "--task", "squad2", *files)[1]["exact"] == 50
    status, found, _ = run(capsys, "--task", "squad2", *files, "--null-odds", odds)
    assert found["exact"] == 100 and found["best_exact_thresh"] == -1
    guess = made("q.json", '{"a": "cat"}')
    files = ["--references", gold, "--predictions", guess]
    _, found, said = run(capsys, "--task", "squad2", *files)
    assert found["missing"] == 1 and "1 questions missing" in said
    status, said, _ = run(capsys, "--task", "squad1", *files)
    assert status == 2 and "Use squad2" in said


def test_tags(made, capsys):
    """Catches sentences scored against others, and tags rewritten before tokens are counted."""
    gold = made("gold.txt", "EU NNP I-NP I-ORG\nx NN I-NP O\n\nBob NNP I-NP I-PER\n")
    guess = made("guess.txt", "EU I-ORG\nx I-ORG\n\nBob I-PER\n")
    files = ["--references", gold, "--predictions", guess]
    status, found, _ = run(capsys, "--task", "ner", *files)
    assert status == 0
    assert (found["precision"], found["recall"], found["f1"]) == (50, 50, 50)
    assert found["accuracy"] == pytest.approx(200 / 3)
    short = made("short.txt", "EU I-ORG\n\nBob I-PER\n")
    status, said, _ = run(capsys, "--task", "ner", "--references", gold, "--predictions", short)
    assert status == 2 and "sentence 1 has 1 words, in the references 2" in said


def test_unknown_task(made, capsys):
    """Catches a mistyped task without the nearest names, or columns given where they are known."""
    path = made("a.tsv", "x\n")
    files = ["--references", path, "--predictions", path]
    status, said, _ = run(capsys, "--task", "sqad1", *files)
    assert status == 2 and "Did you mean 'squad1'?" in said
    status, said, _ = run(capsys, "--task", "sst2", "--label", "y", *files)
    assert status == 2 and "knows its columns" in said
