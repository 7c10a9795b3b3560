"""Files of tagged words."""

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks.files.tagfiles import CharacterSpans, Conll, TagLists
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.known import catalog

CONLL = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP I-PER\n"


def test_conll(made):
    """Catches -DOCSTART- taken for a sentence, IOB1 left as it is, a last sentence without a line after it."""
    first, second = catalog.get("ner").read(made("eng.train", CONLL), "train")
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
        ("a PER\n", "neither O nor one such as B-PER; .*scheme=None"),
        ("a B-\n", "tag 'B-' has no type behind its prefix"),
        ("\n", "has no sentence"),
    ],
)
def test_wrong_columns(made, text, said):
    """Catches a tag that is no tag of the task, or a line torn in two."""
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        catalog.get("ner").read(made("a.txt", text), "train")


def test_lists(made):
    """Catches tags of another length than the words going on into training."""
    good = made("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["I-X", "O"]}\n')
    assert TagLists(scheme="iob2").read(good, Wanted())[0].tags == ("B-X", "O")
    for text, said in (
        ('{"words": ["a", "b"], "tags": ["O"]}', ":1: found 1 tags for 2 words"),
        ('{"words": [], "tags": []}', "'words' is empty"),
        ('{"words": ["a", " "], "tags": ["O", "O"]}', "an empty word"),
        ('{"words": "a b", "tags": [1.5, 2]}', "no list of texts"),
    ):
        with pytest.raises(UserError, match=said):
            TagLists().read(made("b.jsonl", text + "\n"), Wanted())


GERMEVAL = """#\thttp://example.org/a [2009-10-17]
1\tSchartau\tB-PER\tO
2\t10 000\tO\tO
3\t10\u00a0000\tO\tO

#\thttp://example.org/b [2009-10-17]
1\t#\tO\tO
2\t \tO\tO
"""


def test_columns_between_tabs(made):
    """Catches words with a blank in them torn in two, and GermEval's sources taken for words."""
    first, second = Conll(word=1, tag=2).read(made("a.tsv", GERMEVAL), Wanted())
    assert (first.words, first.tags) == (("Schartau", "10 000", "10\u00a0000"), ("B-PER", "O", "O"))
    assert second.words == ("#", " ")
    spaced = made("b.txt", "10\u00a0000 O\n# O\n")
    assert Conll().read(spaced, Wanted())[0].words == ("10\u00a0000", "#")
    wanted = Wanted()
    Conll().read(made("c.txt", "Bob NNP\tB-PER\nsat VBD\tO\n"), wanted)
    assert "2 of 2 words hold a blank" in wanted.notes[0]


def test_a_word_that_is_a_number_sign(made):
    """Catches the word # of a tweet taken for a comment, and comments as wide as a line of words."""
    path = made("a.txt", "# id 5\n# B-X\nb I-X\n\n# O\nc O\n\n# source 7\nd O\n")
    assert [e.words for e in Conll().read(path, Wanted())] == [("#", "b"), ("#", "c"), ("d",)]
    with pytest.raises(UserError, match=":2: found 3 columns; expected 2"):
        Conll().read(made("b.txt", "a O\n# b O\n"), Wanted())


CONLLU = """# sent_id = 1
# text = Zum Haus
1-2\tZum\t_\t_\t_\t_\t_\t_\t_\t_
1\tZu\tzu\tADP\tAPPR\t_\t3\tcase\t_\t_
2\tdem\tder\tDET\tART\t_\t3\tdet\t_\t_
3\tHaus\tHaus\tNOUN\tNN\t_\t0\troot\t_\t_
3.1\tist\tsein\tVERB\t_\t_\t_\t_\t_\t_
"""


def test_conllu_by_name(made):
    """Catches words of CoNLL-U read from a line of several or of none, and names of columns not known."""
    path = made("a.conllu", CONLLU)
    for word, tag in (("FORM", "upos"), (None, None), (1, 3)):
        found = Conll(word, tag, scheme=None).read(path, Wanted())[0]
        assert (found.words, found.tags) == (("Zu", "dem", "Haus"), ("ADP", "DET", "NOUN"))
    with pytest.raises(UserError, match=r"no column 'XPO'. Did you mean 'XPOS'\?"):
        Conll("FORM", "XPO").read(path, Wanted())
    short = made("short.conllu", "# id 1\nBob\tB-X\nsat\tO\n")
    assert Conll().read(short, Wanted())[0].tags == ("B-X", "O")
    bare = CONLLU.replace("ADP", "_").replace("DET", "_").replace("NOUN", "_")
    assert Conll().read(made("b.conllu", bare), Wanted(labelled=False))[0].tags is None
    plus = "# global.columns = ID FORM NE\n1\tBob\tB-PER\n2-3\tam\t_\n2\tan\tO\n3\tdem\tO\n"
    found = Conll("FORM", "NE").read(made("c.conllup", plus), Wanted())[0]
    assert (found.words, found.tags) == (("Bob", "an", "dem"), ("B-PER", "O", "O"))


def test_columns_named_in_the_first_line(made):
    """Catches a name of a column silently taken for the first or the last one."""
    path = made("a.tsv", "id\ttoken\tner\tpos\n7\tBob\tB-P\tNNP\n8\tsat\tO\tVBD\n")
    found = Conll("token", "ner").read(path, Wanted())[0]
    assert (found.words, found.tags) == (("Bob", "sat"), ("B-P", "O"))
    with pytest.raises(UserError, match=r"no column 'tokens'. Did you mean 'token'\?"):
        Conll("tokens", "ner").read(path, Wanted())


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv"])
def test_parts_of_speech_stay_what_they_are(made, name):
    """Catches POS tags rewritten as B- and I-, which became the only classes."""
    text = '{"words": ["Bob", "sat"], "tags": ["PROPN", "VERB"]}\n'
    path = made(name, text if name == "a.jsonl" else "Bob\tPROPN\nsat\tVERB\n")
    layout = TagLists(scheme="iob2") if name == "a.jsonl" else Conll()
    wanted = Wanted()
    assert layout.read(path, wanted)[0].tags == ("PROPN", "VERB")
    assert "mark no entities" in wanted.notes[0]
    mixed = made("b.tsv", "Bob\tB-PER\nsat\tVERB\n")
    with pytest.raises(UserError, match=":2: tag 'VERB' is neither"):
        Conll().read(mixed, Wanted())


def test_an_unlabelled_split_takes_what_it_gets(made):
    """Catches new data that cannot be predicted for a tag of another kind or for want of the column."""
    wanted = Wanted(labelled=False, labels=("O", "B-X"))
    path = made("a.txt", "a O\nb B-X\n\nc B-Y\n\nd NOUN\n\ne B-X\nf I-X\n")
    found = Conll().read(path, wanted)
    assert [e.tags for e in found] == [("O", "B-X"), None, None, None]
    assert "3 labels are none of the task's and taken as absent, the first: " in wanted.notes[0]
    for text, said in (("d NOUN", "'NOUN' is neither"), ("c B-Y", "unknown label 'Y'")):
        with pytest.raises(UserError, match=said):
            Conll().read(made("b.txt", f"e B-X\n{text}\n"), Wanted(labels=("O", "B-X")))
    with pytest.raises(UserError, match=":2: unknown label 'I-X'"):
        Conll().read(made("b.txt", "e B-X\nf I-X\n"), Wanted(labels=("O", "B-X")))
    bare = made("c.tsv", "1\tBob\n")
    assert Conll(1, 2).read(bare, Wanted(labelled=False))[0].tags is None
    with pytest.raises(UserError, match="column 2 is not among them"):
        Conll(1, 2).read(bare, Wanted())


def test_tags_that_are_numbers(made):
    """Catches the integer tags of the datasets library refused, or taken for classes."""
    text = '{"tokens": ["EU", "calls"], "ner_tags": [3, 0]}\n'
    names = ("O", "B-PER", "I-PER", "B-ORG")
    found = TagLists(scheme="iob2", names=names).read(made("a.jsonl", text), Wanted())
    assert found[0].tags == ("B-ORG", "O")
    assert TagLists().read(made("a.jsonl", text), Wanted())[0].tags == ("3", "0")
    assert Conll(names=names).read(made("a.txt", "EU 3\nx 0\n"), Wanted())[0].tags == found[0].tags
    for names, said in ((None, "tag_names=O,B-PER"), (("O", "B-X"), "no number from 0 to 1")):
        with pytest.raises(UserError, match=f":1: .*{said}"):
            TagLists(scheme="iob2", names=names).read(made("b.jsonl", text), Wanted())


def test_token_numbers_for_words(made):
    """Catches a tagger trained on the numbers of the words."""
    path = made("a.txt", "1 Bob B-X\n2 sat O\n")
    with pytest.raises(UserError, match="every word is a number, such as 1; .*counted from 0"):
        Conll().read(path, Wanted())
    wanted = Wanted(labelled=False)
    assert Conll().read(made("b.txt", "42\n"), wanted)[0].words == ("42",)
    assert "every word is a number" in wanted.notes[0]


def test_character_spans_of_another_layout(made):
    """Catches a traceback for labels that are not CLUENER's objects."""
    for label in ("[1]", '{"x": 3}', '{"x": {"a": [0]}}', '{"x": {"a": [["0", 1]]}}'):
        path = made("a.json", f'{{"text": "ab", "label": {label}}}\n')
        with pytest.raises(UserError, match=":1: 'label' is not in CLUENER's layout"):
            CharacterSpans().read(path, Wanted())


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


def test_a_line_between_documents_may_be_divided_otherwise(made):
    """Catches -DOCSTART- with blanks taken for a word of a file whose columns stand between tabs."""
    path = made("a.txt", "-DOCSTART- -X- O\n\nthe\tO\nParis\tB-LOC\n")
    assert [s.words for s in Conll(scheme="iob2").read(path, Wanted())] == [("the", "Paris")]


def test_a_first_line_of_usual_names_is_a_header(made):
    """Catches "Word" learned as a word whose part of speech is "POS"."""
    header = made("a.tsv", "Word\tPOS\nthe\tDET\ncat\tNN\n")
    assert Conll().read(header, Wanted())[0].words == ("the", "cat")
    none = made("b.tsv", "word\tNN\nof\tIN\n")
    assert Conll().read(none, Wanted())[0].words == ("word", "of")


def test_tags_that_have_their_names_already(made):
    """Catches a dev file with names refused because the training file has numbers."""
    path = made("a.jsonl", '{"words": ["a", "b"], "tags": ["B-X", "O"]}\n')
    names = ("O", "B-X")
    assert TagLists(names=names).read(path, Wanted())[0].tags == ("B-X", "O")
    with pytest.raises(UserError, match="tag 'B-Y' is no number from 0 to 1"):
        TagLists(names=names).read(made("b.jsonl", '{"words": ["a"], "tags": ["B-Y"]}\n'), Wanted())
