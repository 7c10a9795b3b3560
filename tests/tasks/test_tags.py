"""What tags mean: conlleval's reading, against hand-worked cases and seqeval."""

import random

import pytest

from electra_jax.tasks import tags
from electra_jax.tasks.tags import Span


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("O I-PER I-PER O", [("PER", 1, 3)]),  # IOB1: I- begins
        ("I-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),  # IOB1: B- between neighbours
        ("B-PER I-PER I-LOC", [("PER", 0, 2), ("LOC", 2, 3)]),  # a change of type begins
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("B-A O I-A", [("A", 0, 1), ("A", 2, 3)]),
        ("S-A B-B I-B E-B E-B", [("A", 0, 1), ("B", 1, 4), ("B", 4, 5)]),  # BIOES
        ("S-A B-B M-B E-B E-B", [("A", 0, 1), ("B", 1, 4), ("B", 4, 5)]),  # BMES
        ("U-A B-B I-B L-B L-B", [("A", 0, 1), ("B", 1, 4), ("B", 4, 5)]),  # BILOU
        ("B M E S S", [("", 0, 3), ("", 3, 4), ("", 4, 5)]),  # words of Chinese: no types
        ("B-A-B I-A-B", [("A-B", 0, 2)]),  # a type with a dash
        ("O O", []),
        ("", []),
    ],
)
def test_spans(said, expected):
    """Catches entities that begin with I- lost, or runs of one type glued or torn."""
    assert tags.spans(said.split()) == [Span(*span) for span in expected]


def test_against_seqeval():
    """Catches any disagreement with an independent reading of random tags."""
    from seqeval.metrics import sequence_labeling as seqeval

    rng = random.Random(0)
    for _ in range(2000):
        said = rng.choices(["O", "B-X", "I-X", "B-Y", "I-Y"], k=rng.randint(1, 9))
        theirs = [(kind, start, last + 1) for kind, start, last in seqeval.get_entities(said)]
        assert tags.spans(said) == theirs, said


@pytest.mark.parametrize("scheme", tags.SCHEMES)
def test_rewriting_keeps_the_entities(scheme):
    """Catches a scheme that merges neighbours of one type or loses a single word."""
    rng = random.Random(1)
    for _ in range(500):
        said = rng.choices(["O", "B-X", "I-X", "I-Y"], k=rng.randint(1, 8))
        again = tags.rewrite(said, scheme)
        assert tags.spans(again) == tags.spans(said)
        assert set(again) <= set(tags.scheme_labels(("X", "Y"), scheme))


def test_schemes_by_hand():
    """Catches one scheme written as another."""
    said = ["I-A", "I-A", "B-A", "O"]
    assert tags.rewrite(said, "iob2") == ("B-A", "I-A", "B-A", "O")
    assert tags.rewrite(said, "bioes") == ("B-A", "E-A", "S-A", "O")
    assert tags.rewrite(["B-A", "I-A", "B-A", "O"], "iob1") == ("I-A", "I-A", "B-A", "O")
    long = ["B-A", "I-A", "I-A", "B-A", "O"]
    assert tags.rewrite(long, "bmes") == ("B-A", "M-A", "E-A", "S-A", "O")
    assert tags.rewrite(long, "bilou") == ("B-A", "I-A", "L-A", "U-A", "O")
    assert tags.rewrite(["B", "M", "E", "S"], "iob2") == ("B", "I", "I", "B")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("O B-X I-X", True),
        ("B M E S", True),
        ("O O", True),
        ("B- I-", True),
        ("DET NOUN VERB O", False),
        ("NN-SB VVFIN-HD", False),
    ],
)
def test_tags_that_mark_no_entities(said, expected):
    """Catches parts of speech rewritten as B- and I-, and untyped entities taken for plain tags."""
    assert tags.mark_entities(said.split()) is expected


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("B-", "no type"),
        ("Q-X", "none of B- I-"),
        ("NOUN", "neither O"),
        ("B", None),
        ("L-X", None),
    ],
)
def test_a_tag_of_no_scheme(tag, said):
    """Catches a prefix with nothing behind it taken for a tag."""
    fault = tags.fault(tag)
    assert fault is None if said is None else said in str(fault)
