"""The word cache gives the ids of the library, whatever the text."""

import random

import numpy as np
import pytest

from electra_jax.text import cache, tokenizer

# What normalisers treat in a way of their own: spaces, controls, marks, ideographs, letters with
# accents in one or two characters, Korean in letters, ligatures, digits of other scripts.
ODD = [
    *"aA.!-_'\"[]#<> \t\n\r\x0b\x1c\x1f\x7f\x85\xa0\xad\u200b\u200d\u2028\u2060\u3000\ufeff\ufffd",
    *"\u0301\u0338\u3099\u20e3\ufe0f\u00b4\u2581\u2044\u00e9\u00c9\u0130\u0131\u00df\u1e9e\ufb01",
    *"\u4e00\u9fff\u3400\u4dbf\uf900\ufa0e\u3007\u30ab\uff76\uff9e\u1100\u1161\u11a8\uac01\u0e33\u0915",
    *"\U00020000\U0002b820\U0002b91f\U0002b920\U0002ceaf\U0002f800\U0001f600\U0001f1e9\U00100000",
    *["E\u0301", "\r\n", "[MASK]", "<unk>", "  ", "x" * 120, "##a", "\u03a3", "\uff3b", "\u0f0b"],
]


def odd_texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(ODD, k=draw.randint(0, 12))) for _ in range(count)]


def same(loaded: tokenizer.Tokenizer, texts: list[str]) -> None:
    """encode_flat, twice (filling the cache and reading it), against the library text by text."""
    expected = loaded.encode_batch(texts)
    for _ in range(2):
        ids, lengths = loaded.encode_flat(texts)
        ends = np.cumsum(lengths)
        found = [part.tolist() for part in np.split(ids, ends[:-1])] if len(texts) else []
        wrong = [t for t, f, e in zip(texts, found, expected, strict=True) if f != e]
        assert not wrong, wrong[:3]


@pytest.mark.parametrize("options", [(True, True), (True, False), (False, False)])
def test_odd_texts_wordpiece(vocabularies, options):
    """Catches a cut where BERT's normaliser does not cut (controls vanish, marks combine)."""
    loaded = tokenizer.load(vocabularies["cased"], *options)
    same(loaded, odd_texts(3000, seed=1))


def test_odd_texts(trained):
    """Catches a cut that changes what SentencePiece's rules make of a space or a mark."""
    same(trained[1], odd_texts(3000, seed=2))


def test_every_character(vocabularies):
    """Catches a range of ideographs that is not exactly the library's."""
    characters = [chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000]
    characters += [chr(c) for c in range(0x10000, 0x30000, 16)]
    same(
        tokenizer.load(vocabularies["chinese"], lowercase=False),
        [
            "".join(f"a{c}b" for c in characters[i : i + 100])
            for i in range(0, len(characters), 100)
        ],
    )


@pytest.mark.parametrize("corpus", ["english", "german", "korean", "chinese"])
def test_corpora(vocabularies, paragraphs, corpus):
    """Catches a difference that only real text shows."""
    name = {"korean": "korean", "chinese": "chinese"}.get(corpus, "uncased")
    same(tokenizer.load(vocabularies[name]), paragraphs(corpus, 200))


def test_full_cache_starts_again(vocabularies, paragraphs, monkeypatch):
    """Catches numbers of words that outlive the table they point into, and memory without end."""
    monkeypatch.setattr(cache, "_MOST_WORDS", 500)
    loaded = tokenizer.load(vocabularies["uncased"])
    texts = paragraphs("english", 100)
    for start in range(0, 100, 10):
        same(loaded, texts[start : start + 10])
        assert len(loaded._flat.__self__._words) <= 500


def test_a_failed_batch_leaves_no_trace(vocabularies):
    """Catches words that got a number, but no ids, when the library refused the batch."""
    loaded = tokenizer.load(vocabularies["uncased"])
    same(loaded, ["some words"])
    with pytest.raises((UnicodeEncodeError, TypeError)):
        loaded.encode_flat(["other words", "half a pair \ud800"])
    same(loaded, ["other words", "half a pair", "some words"])


def test_nothing_to_encode(trained):
    """Catches a batch without texts, or without words, that breaks the arithmetic."""
    for texts in ([], [""], ["", " "]):
        ids, lengths = trained[1].encode_flat(texts)
        assert (ids.shape, lengths.tolist()) == ((0,), [0] * len(texts))
        assert ids.dtype == np.int32 and lengths.dtype == np.int64
