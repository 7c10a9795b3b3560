"""Files of questions: SQuAD's JSON, MRQA's lines, tables; answers that are not where they say."""

import gzip
import json

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks.files.qafiles import MrqaJson, QaTable, SquadJson
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.known import catalog

CONTEXT = "John Smith was born in New York in 1895."


def squad(*qas, context=CONTEXT):
    return json.dumps(
        {"version": "x", "data": [{"paragraphs": [{"context": context, "qas": qas}]}]}
    )


def qa(id="q", answers=(("1895", 35),), **more):
    said = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": id, "question": "When?", "answers": said, **more}


def test_squad(made):
    """Catches references after the first lost (scores take the best of all), starts or ids as text."""
    path = made("a.json", squad(qa(7, [("1895", "35"), ("in 1895", 32)])))
    example = SquadJson().read(path, Wanted())[0]
    assert example.answers == (("1895", 35), ("in 1895", 32))
    assert (example.id, example.golds) == ("7", ("1895", "in 1895"))


def test_impossible_questions(made):
    """Catches questions without an answer in a task that has none such, and plausible answers learned."""
    said = qa(answers=[("John", 0)], is_impossible=True)
    example = SquadJson().read(made("a.json", squad(said)), Wanted())[0]
    assert example.impossible and example.answers == ()
    with pytest.raises(UserError, match=r"question q is impossible to answer.*Use squad2"):
        catalog.get("squad1").read(made("b.json", squad(said)), "train")
    with pytest.raises(UserError, match="has no answer and is not marked is_impossible"):
        SquadJson().read(made("c.json", squad(qa(answers=[]))), Wanted())


def test_misplaced_answers(made):
    """Catches answers trained on at places that hold something else, and carrying on unasked."""
    path = made("a.json", squad(qa("good"), qa("bad", [("1895", 3), ("1895", 35)])))
    with pytest.raises(
        UserError, match=r"1 of 3 answers .*question bad: '1895' is not at char.* 3"
    ):
        SquadJson().read(path, Wanted())
    wanted = Wanted(carry_on=True)
    good, bad = SquadJson().read(path, wanted)
    assert good.answers[0][1] == 35
    assert bad.answers[0] == ("1895", -1)
    assert bad.golds == ("1895", "1895")
    assert "1 of 3 answers" in wanted.notes[0]


def test_case_and_spaces_do_not_misplace(made):
    """Catches answers refused that the original accepts: equal but for case and white space."""
    path = made("a.json", squad(qa(answers=[("john smith", 0)]), context="John\nSmith was."))
    assert SquadJson().read(path, Wanted())[0].answers == (("john smith", 0),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data": 3}', "has no list 'data'"),
        ("[]", "has no list 'data'"),
        (
            '{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}',
            "after 0 questions, an object has no 'context'",
        ),
        ('{"data": []}', "has no question"),
        (squad(qa(), qa()), "two questions have the id q"),
        (squad(qa(), context=" "), "the text 'context' is empty"),
        ('{"data": [', r"a\.json:1: not JSON"),
    ],
)
def test_what_is_wrong(made, text, said):
    """Catches a Python error for a file in another layout."""
    with pytest.raises(UserError, match=said):
        SquadJson().read(made("a.json", text), Wanted())


def test_mrqa(tmp_path):
    """Catches MRQA's last characters taken for the ones after, and its reference list not used."""
    row = {
        "context": CONTEXT,
        "qas": [
            {
                "qid": "q",
                "question": "Where?",
                "answers": ["new york", "NYC"],
                "detected_answers": [{"text": "New York", "char_spans": [[23, 30]]}],
            }
        ],
    }
    path = tmp_path / "a.jsonl.gz"
    lines = json.dumps({"header": {"dataset": "x"}}) + "\n" + json.dumps(row) + "\n"
    path.write_bytes(gzip.compress(lines.encode()))
    example = catalog.get("mrqa").read(path, "train")[0]
    assert example.answers == (("New York", 23),)
    assert example.golds == ("new york", "NYC")
    row["qas"][0]["detected_answers"][0]["char_spans"] = [[0, 7]]
    path.write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    with pytest.raises(UserError, match="1 of 1 answers are not where"):
        MrqaJson().read(str(path), Wanted())


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answer": "1895"}, (("1895", 35),)),
        ({"answer": "n", "answer_start": 3}, (("n", 3),)),
        (
            {"answers": {"text": ["1895", "John"], "answer_start": [35, 0]}},
            (("1895", 35), ("John", 0)),
        ),
        ({"answers": []}, ()),
        ({"answer": ""}, ()),
    ],
)
def test_rows(made, row, answers):
    """Catches one of the ways in which tables hold answers misread."""
    text = json.dumps({"question": "When?", "context": CONTEXT, **row})
    example = QaTable().read(made("a.jsonl", text), Wanted())[0]
    assert example.answers == answers
    assert example.impossible == (not answers)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "1896"}, "1 of 1 answers are not where"),
        ({"answer": "1895", "answer_start": [1, 2]}, "found 2 answer starts for 1 answers"),
        ({"answer": "1895", "answer_start": "x"}, "answer start 'x' is no whole number"),
        ({"answer": 1895}, "neither a text nor a list of texts"),
        ({}, "no column 'answers'"),
    ],
)
def test_wrong_rows(made, row, said):
    """Catches an answer that the context does not have, or one that is no text."""
    text = json.dumps({"question": "When?", "context": CONTEXT, **row})
    with pytest.raises(UserError, match=said):
        QaTable().read(made("a.jsonl", text), Wanted())


@pytest.mark.parametrize("qa", ["3", "{}", '{"qid": "q", "detected_answers": [{"text": "a"}]}'])
def test_another_layout_than_mrqa(made, qa):
    """Catches a traceback for questions that are not MRQA's objects."""
    path = made("a.jsonl", f'{{"context": "a b", "qas": [{qa}]}}\n')
    with pytest.raises(UserError, match=r":1 is not in MRQA's layout|has no detected answer"):
        MrqaJson().read(path, Wanted())


@pytest.mark.parametrize("place", ['"x"', "null", '{"a": 1}'])
def test_another_layout_than_squad(made, place):
    """Catches a traceback for an answer's place that is no number."""
    qa = f'{{"id": "q", "question": "?", "answers": [{{"text": "b", "answer_start": {place}}}]}}'
    path = made(
        "a.json", f'{{"data": [{{"paragraphs": [{{"context": "a b", "qas": [{qa}, 3]}}]}}]}}'
    )
    with pytest.raises(UserError, match="question q: answer start .* is no whole number"):
        SquadJson().read(path, Wanted())


def test_null_where_other_questions_have_answers(made):
    """Catches impossible questions written as null refused, or a dev file that is not scored."""
    row = '{"question": "q", "context": "a b", "answer": %s}\n'
    some = made("a.jsonl", row % '"a"' + row % "null")
    for wanted in (Wanted(), Wanted(labelled=False)):
        assert [q.impossible for q in QaTable().read(some, wanted)] == [False, True]
    none = made("b.jsonl", row % "null" * 2)
    assert not any(q.impossible for q in QaTable().read(none, Wanted(labelled=False)))
    with pytest.raises(UserError, match="no question has an answer"):
        QaTable().read(none, Wanted())


@pytest.mark.parametrize("start", [4.5, True, [1], "4.5", "9" * 5000])
def test_starts_that_are_no_places(made, start):
    """Catches 4.5 read as 4, or a start that is not one taken for a fault of the whole layout."""
    path = made("a.json", squad(qa(answers=[("1895", start)])))
    with pytest.raises(UserError, match="question q: answer start .* is no whole number"):
        SquadJson().read(path, Wanted())


def test_an_answer_with_a_negative_start_is_not_nowhere(made):
    """Catches a message that denies an answer that the context holds."""
    path = made("a.json", squad(qa(answers=[("1895", -4)])))
    with pytest.raises(UserError, match="'1895' is not at character -4"):
        SquadJson().read(path, Wanted())
