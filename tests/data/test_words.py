"""Where words begin: by token, by Chinese character, and by a segmenter's words."""

import sys
import types

import numpy as np
import pytest

from electra_jax.data import words
from electra_jax.spec import UserError
from electra_jax.text import tokenizer


@pytest.fixture
def segmenter(monkeypatch) -> None:
    """A stand-in for jieba that finds the words given it by bars in the text."""
    module = types.ModuleType("jieba")
    module.setLogLevel = lambda level: None
    module.lcut = lambda text: WORDS_OF[text]
    monkeypatch.setitem(sys.modules, "jieba", module)


WORDS_OF = {
    "我爱北京天安门, testing": ["我", "爱", "北京", "天安门", ",", " ", "testing"],
    "她上天": ["她上", "天"],
    "天天上": ["天", "天上"],
    "the": ["the"],
}


def starts(vocab, lines: list[str], segmenter: str | None) -> list[list[int]]:
    loaded = tokenizer.load(vocab)
    ids_N, lengths_P = loaded.encode_flat(lines)
    found = words.Words(loaded, segmenter).starts(lines, lengths_P, ids_N)
    ends = np.cumsum(lengths_P)
    return [found[a:b].astype(int).tolist() for a, b in zip(ends - lengths_P, ends, strict=True)]


def test_chinese_characters_are_words_without_a_segmenter(vocab):
    """Catches a whole Chinese sentence taken for one word."""
    found = starts(vocab, ["the", "我爱北京天安门, testing"], None)
    assert found[0] == [1]
    assert found[1][:8] == [1] * 8  # seven characters and the comma
    assert found[1][8] == 1 and not any(found[1][9:])


def test_a_segmenter_joins_the_characters_of_a_word(vocab, segmenter):
    """Catches flags shifted by a line, by a character that is [UNK], or by what is not Chinese."""
    lines = ["the", "我爱北京天安门, testing", "她上天", "天天上"]
    found = starts(vocab, lines, "jieba")
    assert found[0] == [1]
    assert found[1][:8] == [1, 1, 1, 0, 1, 0, 0, 1]
    assert found[1][8] == 1 and not any(found[1][9:])
    # The first character is unknown: its [UNK] is a word, and what belongs to it no start.
    assert found[2] == [1, 0, 1]
    assert found[3] == [1, 1, 0]


def test_chinese_characters_are_words_in_sentencepiece_too():
    """Catches a Chinese sentence of one word where only a space makes a word begin."""
    pieces = ["\u2581the", "\u2581我", "北京", "ing", "天"]
    loaded = types.SimpleNamespace(
        size=5,
        tokens=lambda ids: [pieces[i] for i in ids],
        starts_V=np.array([1, 1, 0, 0, 0], bool),
        cuts_words=False,
        is_byte_level=False,
    )
    found = words.Words(loaded).starts([], np.array([]), np.arange(5))
    assert found.tolist() == [True, True, True, False, True]


def test_a_missing_segmenter_is_an_error_with_the_remedy(monkeypatch):
    """Catches a traceback from the depths of an import."""
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match="pip install"):
        words.load_segmenter("jieba")
    with pytest.raises(UserError, match="jieba"):
        words.load_segmenter("jeiba")


def test_words_of_a_segmenter_in_the_tokenizer():
    """Catches Japanese words that MeCab found, taken apart at every Chinese character."""
    pieces = ["東", "##京", "##都", "の", "空"]
    loaded = types.SimpleNamespace(
        size=5,
        tokens=lambda ids: [pieces[i] for i in ids],
        starts_V=np.array([1, 0, 0, 1, 1], bool),
        cuts_words=True,
        is_byte_level=False,
    )
    found = words.Words(loaded).starts([], np.array([]), np.arange(5))
    assert found.tolist() == [True, False, False, True, True]
