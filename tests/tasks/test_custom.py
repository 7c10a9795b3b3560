"""The user's own files, by column names."""

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import custom
from electra_jax.tasks import task as tasks
from electra_jax.tasks.examples import TextExample


def test_pairs_in_csv(made):
    """Catches column names that are not those asked for, or classes guessed in the wrong order."""
    path = made("a.csv", "n,first,second,verdict\n7,a,b,no\n8,c,d,yes\n")
    task = custom.make("classify", text="first", pair="second", label="verdict", id="n")
    found = task.read(path, "train")
    assert found[0] == TextExample("7", "a", "b", "no")
    assert tasks.labels_of(task, found) == ("no", "yes")
    assert tasks.labels_of(custom.make("classify", labels=("yes", "no")), found) == ("yes", "no")


def test_regression(made):
    """Catches a range that is not checked."""
    path = made("a.tsv", "text\tlabel\na\t0.5\nb\t2\n")
    assert [e.label for e in custom.make("regress").read(path, "train")] == [0.5, 2.0]
    with pytest.raises(UserError, match=":3: label 2 is outside the task's range, 0 to 1"):
        custom.make("regress", score_range=(0, 1)).read(path, "train")


def test_tags_by_number_and_by_name(made):
    """Catches the part of speech read for the entity, or JSON lists read as columns."""
    columns = made("a.txt", "1 Bob NNP B-P\n2 sat VBD O\n")
    entities = custom.make("tag", words="1").read(columns, "train")[0]
    assert (entities.words, entities.tags) == (("Bob", "sat"), ("B-P", "O"))
    speech = custom.make("tag", words="1", tags="2", scheme=None)
    assert speech.read(columns, "train")[0].tags == ("NNP", "VBD")
    assert (speech.metrics, speech.main_metric) == (("token_accuracy",), "accuracy")
    lists = made("a.jsonl", '{"w": ["Bob", "sat"], "t": ["I-P", "O"]}\n')
    assert custom.make("tag", words="w", tags="t").read(lists, "train")[0].tags == ("B-P", "O")


def test_questions_in_two_layouts(made):
    """Catches SQuAD's layout taken for rows, or rows for SQuAD's layout."""
    qa = '{"id": "q", "question": "?", "answers": [{"text": "b", "answer_start": 2}]}'
    squad = f'{{"data": [{{"paragraphs": [{{"context": "a b", "qas": [{qa}]}}]}}]}}'
    spread = squad.replace("{", "{\n", 1)
    rows = '{"q": "?", "c": "a b", "a": "b"}\n'
    task = custom.make("qa", question="q", context="c", answer="a")
    for name, text in (("a.json", squad), ("b.json", spread), ("c.jsonl", rows), ("d.json", rows)):
        assert task.read(made(name, text), "train")[0].answers == (("b", 2),)
    table = made("e.tsv", "q\tc\ta\n?\ta b\tb\n")
    assert task.read(table, "train")[0].answers == (("b", 2),)


def test_choices_and_relations(made):
    """Catches several columns of choices read as one, and the negative class not said to the score."""
    path = made("a.csv", "context,one,two,label\nc,a,b,1\n")
    task = custom.make("choice", choices=("one", "two"))
    assert task.read(path, "train")[0].choices == ("a", "b")
    task = custom.make("choice", context="one", choices=("context", "two"))
    assert task.read(path, "train")[0].context == "a"
    path = made(
        "r.jsonl", '{"text": "Ann met Bob", "head": [0, 3], "tail": [8, 11], "label": "x"}\n'
    )
    task = custom.make("relation", negative="none")
    assert task.read(path, "train")[0].text.split() == ["@", "Ann", "@", "met", "#", "Bob", "#"]
    assert task.main_metric == "relation_f1"


def test_tag_files_by_the_flags_for_texts(made):
    """Catches --text and --label ignored for tags, so that the first column, token numbers, was learned."""
    path = made("a.txt", "1 Bob B-P\n2 sat O\n")
    found = custom.make("tag", text="1", label="2").read(path, "train")[0]
    assert (found.words, found.tags) == (("Bob", "sat"), ("B-P", "O"))
    with pytest.raises(UserError, match=":1: found 3 columns; column 3 is not .*counted from 0"):
        custom.make("tag", text="1", label="3").read(path, "train")
    lists = made("a.jsonl", '{"words": ["Bob"], "tags": ["O"]}\n')
    with pytest.raises(UserError, match="no column '1'"):
        custom.make("tag", words="1").read(lists, "train")


def test_paths_into_objects(made):
    """Catches labels inside an object refused, or words of a list of objects."""
    path = made("a.jsonl", '{"text": "x", "labels": {"label": "good", "by": [1]}}\n')
    assert custom.make("classify", label="labels.label").read(path, "train")[0].label == "good"
    with pytest.raises(UserError, match=r"Did you mean 'labels\.label'\?"):
        custom.make("classify", label="labels.lable").read(path, "train")
    path = made("b.jsonl", '{"ws": [{"form": "Bob", "t": "B-P"}, {"form": "sat", "t": "O"}]}\n')
    found = custom.make("tag", words="ws.form", tags="ws.t").read(path, "train")[0]
    assert (found.words, found.tags) == (("Bob", "sat"), ("B-P", "O"))
    literal = made("c.jsonl", '{"text": "x", "a.b": "y", "a": {"b": "z"}}\n')
    assert custom.make("classify", label="a.b").read(literal, "train")[0].label == "y"


@pytest.mark.parametrize("label", ["[0, 2]", '["a"]', '{"a": 1}'])
def test_several_labels_are_refused(made, label):
    """Catches a list of labels that becomes a class of that name."""
    row = f'{{"text": "Ann met Bob", "head": [0, 3], "tail": [8, 11], "label": {label}}}\n'
    for kind in ("classify", "relation"):
        for split in ("train", "test"):
            with pytest.raises(UserError, match=r":1: the label is .*multi-label"):
                custom.make(kind).read(made("a.jsonl", row), split)


def test_training_data_say_what_a_label_is(made):
    """Catches the classes -1 and None taken for no label in test files, where training knows them."""
    rows = "text\tlabel\na\t-1\nb\tNone\nc\t1\nd\t\ne\tx\n"
    train = custom.make("classify").read(made("train.tsv", rows.replace("d\t\n", "")), "train")
    task = tasks.with_labels(custom.make("classify"), ("-1", "1", "None"))
    assert [e.label for e in train] == ["-1", "None", "1", "x"]
    labels = [e.label for e in task.read(made("test.tsv", rows), "test")]
    assert labels == ["-1", "None", "1", None, None]
    scores = made("scores.tsv", "text\tlabel\na\t-1\nb\t0.5\n")
    assert [e.label for e in custom.make("regress").read(scores, "test")] == [-1.0, 0.5]
    none = made("none.tsv", "text\tlabel\na\t-1\nb\t-1\n")
    assert [e.label for e in custom.make("regress").read(none, "predict")] == [None, None]


def test_plain_tags_are_scored_by_accuracy(made):
    """Catches parts of speech scored as entities, by finetune and by a later predict."""
    path = made("a.tsv", "Bob\tPROPN\nsat\tVERB\n")
    task = custom.make("tag")
    task = tasks.with_labels(task, tasks.labels_of(task, task.read(path, "train")))
    assert (task.metrics, task.main_metric) == (("token_accuracy",), "accuracy")
    assert task.read(path, "predict")[0].tags == ("PROPN", "VERB")
    with pytest.raises(UserError, match=":1: unknown label 'PROP'"):
        task.read(made("b.tsv", "Bob\tPROP\n"), "dev")
    entities = tasks.with_labels(custom.make("tag"), ("O", "B-X", "I-X"))
    assert entities.metrics == ("entities",)


def test_what_is_wrong():
    """Catches a mistyped kind or scheme that ends in a traceback."""
    with pytest.raises(UserError, match=r"'clasify'.* Did you mean 'classify'\?"):
        custom.make("clasify")
    with pytest.raises(UserError, match="scheme"):
        custom.make("tag", scheme="iob")
