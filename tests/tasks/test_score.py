"""`electra-jax score`: from two files to JSON."""

import json

import pytest

from electra_jax import cli
from electra_jax.tasks import outputs
from electra_jax.tasks.answers import Answers


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


def test_classes_that_the_references_lack(made, capsys):
    """Catches a rare class of the training data, predicted where dev has none, refused: it is wrong."""
    gold = made("g.csv", "id,t,y\n0,a,red\n1,b,red\n")
    guess = made("p.tsv", "index\tprediction\n0\tred\n1\tblue\n")
    flags = ["--task", "classify", "--text", "t", "--label", "y", "--references", gold]
    status, found, said = run(capsys, *flags, "--predictions", guess)
    assert status == 0 and found["accuracy"] == 50
    assert "1 predictions are classes that no reference has, so wrong: blue" in said


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


def test_accuracy_in_the_scheme_of_the_file(made, capsys):
    """Catches IOB2 predictions held against IOB1 references, tag by tag: not what finetune says."""
    gold = made("gold.txt", "EU I-ORG\nx O\n\nBob I-PER\n")
    flags = ["--task", "ner", "--references", gold, "--predictions"]
    both = made("both.conll", "EU B-ORG B-ORG\nx O O\n\nBob B-PER I-PER\n")
    _, found, said = run(capsys, *flags, both)
    assert found["accuracy"] == pytest.approx(200 / 3) and found["f1"] == 100 and not said
    other = made("other.conll", "EU B-LOC B-ORG\nx O O\n\nBob B-PER I-PER\n")
    assert run(capsys, *flags, other)[1]["accuracy"] == pytest.approx(200 / 3)
    alone = made("alone.conll", "EU B-ORG\nx O\n\nBob I-PER\n")
    _, found, said = run(capsys, *flags, alone)
    assert (
        found["accuracy"] == pytest.approx(200 / 3)
        and "in another scheme than the references'" in said
    )


def test_tags_that_no_reference_has_are_said(made, capsys):
    """Catches an accuracy of 0 for names against numbers, or for a column nobody asked for, without a word; and lists
    in another scheme than the references'."""
    gold = made("gold.jsonl", '{"words": ["a", "b"], "tags": ["0", "1"]}\n')
    guess = made("p.jsonl", '{"words": ["a", "b"], "tags": ["O", "B-X"]}\n')
    flags = ["--task", "tag", "--references", gold, "--predictions"]
    status, found, said = run(capsys, *flags, guess)
    assert status == 0 and found["accuracy"] == 0 and "no reference has B-X, O" in said
    gold = made("g.jsonl", '{"words": ["a", "b"], "tags": ["I-X", "I-X"]}\n')
    guess = made("q.jsonl", '{"words": ["a", "b"], "tags": ["B-X", "E-X"]}\n')
    flags = ["--task", "tag", "--references", gold, "--predictions"]
    _, found, said = run(capsys, *flags, guess)
    assert found["f1"] == 100 and "in another scheme than the references'" in said


def test_conllu_predictions_have_the_columns_of_the_references(made, capsys):
    """Catches XPOS asked for and UPOS read from the predictions: an accuracy of 0 without a word."""
    line = "1\ta\ta\t{}\t{}\t_\t0\troot\t_\t_\n\n"
    gold = made("gold.conllu", line.format("NOUN", "NN"))
    guess = made("p.conllu", line.format("VERB", "NN"))
    files = ["--references", gold, "--predictions", guess]
    _, found, said = run(capsys, "--task", "tag", "--label", "XPOS", *files)
    assert found["accuracy"] == 100 and not said


@pytest.mark.parametrize("value", ["null", "[1]"])
def test_a_prediction_is_one_class(made, capsys, value):
    """Catches null and lists scored as wrong classes of these names."""
    gold = made(
        "gold.jsonl",
        '{"text": "a", "label": "x", "id": "0"}\n{"text": "b", "label": "y", "id": "1"}\n',
    )
    guess = made(
        "p.jsonl", f'{{"index": "0", "prediction": "x"}}\n{{"index": "1", "prediction": {value}}}\n'
    )
    flags = ["--task", "classify", "--references", gold, "--predictions", guess]
    status, said, _ = run(capsys, *flags)
    assert status == 2 and f"{guess}:2" in said


def test_cluener_files(made, capsys):
    """Catches a submission refused for want of texts or places, and overlaps that do not count."""
    label = {"name": {"ab": [[0, 1]]}, "game": {"abc": [[0, 2]]}}
    gold = made("dev.json", json.dumps({"text": "abcd", "label": label}))
    flags = ["--task", "cluener", "--references", gold, "--predictions"]
    _, found, _ = run(capsys, *flags, made("a.json", json.dumps({"label": label})))
    assert found["cluener_official"] == pytest.approx(20) and found["f1"] == 100
    nowhere = {"name": {"ab": [[7, 9]], "cd": []}, "game": ["abc"]}
    _, found, _ = run(capsys, *flags, made("b.json", json.dumps({"id": 0, "label": nowhere})))
    assert found == {"cluener_official": pytest.approx((100 * 2 / 3 + 100) / 10)}
    status, said, _ = run(capsys, *flags, made("c.json", '{"label": {"nam": {"ab": []}}}'))
    assert status == 2 and "c.json:1: unknown label 'nam'. Did you mean 'name'" in said
    status, said, _ = run(capsys, *flags, made("d.json", '{"label": []}'))
    assert status == 2 and "d.json:1: no object 'label'" in said


def test_mrqa_without_detected_answers(made, capsys):
    """Catches references refused for want of places that scoring does not need."""
    qas = [{"qid": "a", "question": "?", "answers": ["Cat", "dog"]}]
    gold = made("dev.jsonl", json.dumps({"context": "a cat", "qas": qas}))
    guess = made("p.json", '{"a": "the dog"}')
    flags = ["--task", "mrqa", "--references", gold, "--predictions", guess]
    assert run(capsys, *flags)[1]["f1"] == 100


def test_the_best_threshold_needs_the_raw_texts(tmp_path, made, capsys):
    """Catches our predictions.json emptied by our own threshold, of which null odds make 0."""
    qas = [{"id": "a", "question": "?", "answers": [{"text": "cat", "answer_start": 2}]}]
    text = json.dumps({"data": [{"paragraphs": [{"context": "a cat", "qas": qas}]}]})
    gold, found = made("dev.json", text), Answers({"a": "cat"}, {"a": []}, {"a": 3.0})
    outputs.answers(tmp_path, found, threshold=0.0)
    odds = ["--null-odds", str(tmp_path / "null_odds.json")]
    flags = ["--task", "squad2", "--references", gold, "--predictions"]
    _, said, _ = run(capsys, *flags, str(tmp_path / "predictions.json"), *odds)
    assert (said["best_exact"], said["best_exact_thresh"], said["exact"]) == (100, 3, 0)
    assert run(capsys, *flags, str(tmp_path / "thresholded.json"))[1]["exact"] == 0


def test_rows_that_a_test_split_keeps(made, capsys):
    """Catches predictions of a test file refused where dev leaves its broken rows out."""
    gold = made("ratings.txt", "id\tdocument\tlabel\n1\tgood\t1\n2\t\t0\n3\tbad\t0\n")
    flags = ["--task", "nsmc", "--references", gold, "--predictions"]
    dev = made("dev.tsv", "index\tprediction\n1\t1\n3\t1\n")
    assert run(capsys, *flags, dev)[1] == {"accuracy": 50}
    test = made("test.tsv", "index\tprediction\n1\t1\n2\t0\n3\t1\n")
    assert run(capsys, *flags, test)[1] == {"accuracy": pytest.approx(200 / 3)}
