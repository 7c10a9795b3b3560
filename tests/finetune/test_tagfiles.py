"""Files of tagged words."""

import pytest

from electra_jax.finetune import tasks
from electra_jax.finetune.tagfiles import CharacterSpans, Conll, TagLists
from electra_jax.finetune.wanted import Wanted
from electra_jax.spec import UserError

CONLL = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP I-PER\n"


def test_conll(made):
    """Catches -DOCSTART- taken for a sentence, IOB1 left as it is, a last sentence without a line after it."""
    first, second = tasks.get("ner").read(made("eng.train", CONLL), "train")
    assert (first.words, first.tags) == (("EU", "rejects"), ("B-ORG", "O"))
    assert (second.words, second.tags) == (("Peter",), ("B-PER",))


def test_conll_without_tags(made):
    """Catches a file of words alone refused where tags are not needed, or accepted where they are."""
    path = made("words.txt", "EU\nrejects\n")
    assert Conll().read(path, Wanted(labelled=False))[0].tags is None
    with pytest.raises(UserError, match=r":1: found a word without a tag"):
        Conll().read(path, Wanted())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a O\nb\n", ":2: found 1 columns; expected 2"),
        ("a I-PET\n", ":1: unknown label 'PET'. Did you mean 'PER'?"),
        ("a Q-PER\n", "begins with none of B- I- E- S-"),
        ("a PER\n", "neither O nor one such as B-PER"),
        ("\n", "has no sentence"),
    ],
)
def test_wrong_columns(made, text, said):
    """Catches a tag that is no tag of the task, or a line torn in two."""
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        tasks.get("ner").read(made("a.txt", text), "train")


def test_lists(made):
    """Catches tags of another length than the words going on into training."""
    good = made("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["I-X", "O"]}\n')
    assert TagLists(scheme="iob2").read(good, Wanted())[0].tags == ("B-X", "O")
    for text, said in (
        ('{"words": ["a", "b"], "tags": ["O"]}', ":1: found 1 tags for 2 words"),
        ('{"words": [], "tags": []}', "'words' is empty"),
        ('{"words": ["a", " "], "tags": ["O", "O"]}', "an empty word"),
        ('{"words": "a b", "tags": [1, 2]}', "no list of texts"),
    ):
        with pytest.raises(UserError, match=said):
            TagLists().read(made("b.jsonl", text + "\n"), Wanted())


def test_character_spans(made):
    """Catches CLUENER's last character taken for the one after it, or a span that is not there."""
    text = '{"text": "在北京大学", "label": {"address": {"北京": [[1, 2]]}}}\n'
    example = CharacterSpans().read(made("a.json", text), Wanted())[0]
    assert example.words == tuple("在北京大学")
    assert example.tags == ("O", "B-address", "I-address", "O", "O")
    with pytest.raises(UserError, match="'北京' is not at characters 0 to 1"):
        CharacterSpans().read(made("b.json", text.replace("[1, 2]", "[0, 1]")), Wanted())


def test_spans_inside_others(made):
    """Catches nested entities that break each other's tags; the longer one stays, and it is said."""
    text = '{"text": "北京大学", "label": {"x": {"北京": [[0, 1]]}, "y": {"北京大学": [[0, 3]]}}}\n'
    wanted = Wanted()
    example = CharacterSpans().read(made("a.json", text), wanted)[0]
    assert example.tags == ("B-y", "I-y", "I-y", "I-y")
    assert "1 entities inside longer ones" in wanted.notes[0]
