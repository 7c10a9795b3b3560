"""Examples as token ids: special tokens, truncation, which token carries which target."""

import numpy as np
import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.spec import UserError
from electra_jax.tasks import custom, features
from electra_jax.tasks.examples import ChoiceExample, TagExample, TextExample
from electra_jax.tasks.known import catalog


def shown(tokenizer, row):
    return " ".join(tokenizer.tokens(row))


def test_texts_and_pairs(speller):
    """Catches a missing separator, types that begin a token early or late, labels out of order."""
    examples = [TextExample("0", "The cat", None, "b"), TextExample("1", "a dog", "sat", "a")]
    made = kinds.features(custom.make("classify"), examples, speller, 16, ("a", "b"))
    assert shown(speller, made.ids[0]) == "[CLS] the cat [SEP]"
    assert shown(speller, made.ids[1]) == "[CLS] a dog [SEP] sat [SEP]"
    assert [row.tolist() for row in made.types] == [[0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert made.targets["label"].tolist() == [1, 0]
    assert made.lengths.tolist() == [4, 6] and len(made) == 2


def test_truncation_is_the_originals():
    """Catches another share of the room than taking tokens from the longer text one by one."""
    for first in range(13):
        for second in range(13):
            for room in range(2, 16):
                a, b = first, second
                while a + b > room:
                    a, b = (a - 1, b) if a > b else (a, b - 1)
                assert features.shares(first, second, room) == (a, b)


def test_long_texts_are_cut(speller):
    """Catches rows longer than max_len, or without their last separator."""
    examples = [TextExample("0", "cat " * 30), TextExample("1", "cat " * 30, "dog " * 3)]
    made = kinds.features(custom.make("regress"), examples, speller, 12)
    assert made.lengths.tolist() == [12, 12]
    assert shown(speller, made.ids[1]) == "[CLS]" + " cat" * 6 + " [SEP]" + " dog" * 3 + " [SEP]"
    assert np.isnan(made.targets["label"]).all()


def test_tags_stand_at_first_tokens(speller):
    """Catches tags shifted by [CLS], repeated over a word's pieces, or a word without a token."""
    example = TagExample("0", ("John", "xyz", "\u200b", "sat"), ("B-P", "I-P", "O", "O"))
    made = kinds.features(custom.make("tag"), [example], speller, 16, ("O", "B-P", "I-P"))
    assert shown(speller, made.ids[0]) == "[CLS] john x ##y ##z [UNK] sat [SEP]"
    assert made.targets["label"][0].tolist() == [-100, 1, 2, -100, -100, 0, 0, -100]
    assert made.words[0].tolist() == [1, 2, 5, 6]
    assert set(made.types[0]) == {0}


def test_long_sentences_go_on(speller):
    """Catches words lost at the end of a row, or a word torn between two."""
    words = ("cat", "xyz", "dog", "sat", "mat") * 3
    tags = tuple(str(number) for number in range(15))
    made = kinds.features(custom.make("tag"), [TagExample("0", words, tags)], speller, 8, tags)
    assert max(made.lengths) <= 8
    seen = []
    for row, first, places in zip(made.ids, made.first_word, made.words, strict=True):
        assert shown(speller, row).startswith("[CLS]") and shown(speller, row).endswith("[SEP]")
        seen += range(first, first + len(places))
    assert seen == list(range(15))
    found = [t[p].tolist() for t, p in zip(made.targets["label"], made.words, strict=True)]
    assert [tag for row in found for tag in row] == list(range(15))
    assert made.example.tolist() == [0] * len(made)


def test_a_word_longer_than_a_row(speller):
    """Catches an endless loop over a word that fits in no row."""
    made = kinds.features(custom.make("tag"), [TagExample("0", ("x" * 40, "cat"))], speller, 10)
    assert made.lengths.tolist() == [10, 3]
    assert made.targets["label"][0].tolist() == [-100] * 10


def test_choices_are_neighbours(speller):
    """Catches choices of two examples mixed, or a batch planned by the wrong length."""
    examples = [
        ChoiceExample("0", "cat", ("a", "dog sat on"), 1),
        ChoiceExample("1", "it", ("a", "b")),
    ]
    made = kinds.features(catalog.get("swag"), examples, speller, 32)
    assert made.group == 2 and len(made) == 2 and len(made.ids) == 4
    assert made.lengths.tolist() == [7, 5]
    assert made.targets["label"].tolist() == [1, -1]
    assert shown(speller, made.ids[1]) == "[CLS] cat [SEP] dog sat on [SEP]"


def test_what_is_wrong(speller):
    """Catches labels of another task trained as class 0."""
    with pytest.raises(UserError, match="example 7: label 'c' is none of the model's: a, b"):
        kinds.features(
            custom.make("classify"), [TextExample("7", "x", None, "c")], speller, 16, ("a", "b")
        )
    with pytest.raises(UserError, match="max_len 4"):
        kinds.features(catalog.get("sst2"), [], speller, 4)
