"""The user's own files, by column names."""

import pytest

from electra_jax.finetune import tasks
from electra_jax.finetune.examples import TextExample
from electra_jax.spec import UserError


def test_pairs_in_csv(made):
    """Catches column names that are not those asked for, or classes guessed in the wrong order."""
    path = made("a.csv", "n,first,second,verdict\n7,a,b,no\n8,c,d,yes\n")
    task = tasks.custom("classify", text="first", pair="second", label="verdict", id="n")
    found = task.read(path, "train")
    assert found[0] == TextExample("7", "a", "b", "no")
    assert tasks.labels_of(task, found) == ("no", "yes")
    assert tasks.labels_of(tasks.custom("classify", labels=("yes", "no")), found) == ("yes", "no")


def test_regression(made):
    """Catches a range that is not checked."""
    path = made("a.tsv", "text\tlabel\na\t0.5\nb\t2\n")
    assert [e.label for e in tasks.custom("regress").read(path, "train")] == [0.5, 2.0]
    with pytest.raises(UserError, match=":3: label 2 is outside the task's range, 0 to 1"):
        tasks.custom("regress", score_range=(0, 1)).read(path, "train")


def test_tags_by_number_and_by_name(made):
    """Catches the part of speech read for the entity, or JSON lists read as columns."""
    columns = made("a.txt", "1 Bob NNP B-P\n2 sat VBD O\n")
    entities = tasks.custom("tag", words="1").read(columns, "train")[0]
    assert (entities.words, entities.tags) == (("Bob", "sat"), ("B-P", "O"))
    speech = tasks.custom("tag", words="1", tags="2", scheme=None)
    assert speech.read(columns, "train")[0].tags == ("NNP", "VBD")
    assert (speech.metrics, speech.main_metric) == (("token_accuracy",), "accuracy")
    lists = made("a.jsonl", '{"w": ["Bob", "sat"], "t": ["I-P", "O"]}\n')
    assert tasks.custom("tag", words="w", tags="t").read(lists, "train")[0].tags == ("B-P", "O")


def test_questions_in_two_layouts(made):
    """Catches SQuAD's layout taken for rows, or rows for SQuAD's layout."""
    qa = '{"id": "q", "question": "?", "answers": [{"text": "b", "answer_start": 2}]}'
    squad = f'{{"data": [{{"paragraphs": [{{"context": "a b", "qas": [{qa}]}}]}}]}}'
    spread = squad.replace("{", "{\n", 1)
    rows = '{"q": "?", "c": "a b", "a": "b"}\n'
    task = tasks.custom("qa", question="q", context="c", answer="a")
    for name, text in (("a.json", squad), ("b.json", spread), ("c.jsonl", rows), ("d.json", rows)):
        assert task.read(made(name, text), "train")[0].answers == (("b", 2),)
    table = made("e.tsv", "q\tc\ta\n?\ta b\tb\n")
    assert task.read(table, "train")[0].answers == (("b", 2),)


def test_choices_and_relations(made):
    """Catches several columns of choices read as one, and the negative class not said to the score."""
    path = made("a.csv", "context,one,two,label\nc,a,b,1\n")
    task = tasks.custom("choice", choices=("one", "two"))
    assert task.read(path, "train")[0].choices == ("a", "b")
    task = tasks.custom("choice", context="one", choices=("context", "two"))
    assert task.read(path, "train")[0].context == "a"
    path = made(
        "r.jsonl", '{"text": "Ann met Bob", "head": [0, 3], "tail": [8, 11], "label": "x"}\n'
    )
    task = tasks.custom("relation", negative="none")
    assert task.read(path, "train")[0].text.split() == ["@", "Ann", "@", "met", "#", "Bob", "#"]
    assert task.main_metric == "relation_f1"


def test_what_is_wrong():
    """Catches a mistyped kind or scheme that ends in a traceback."""
    with pytest.raises(UserError, match=r"'clasify'.* Did you mean 'classify'\?"):
        tasks.custom("clasify")
    with pytest.raises(UserError, match="scheme"):
        tasks.custom("tag", scheme="iob")
