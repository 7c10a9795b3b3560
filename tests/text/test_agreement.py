"""All ways to encode give the same ids, for tokenizers of every kind, and so does transformers."""

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_jax.text import borders, tokenizer
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.text.wordpiece import Rules

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCéüß東京都語特あパガラス猫한글각12.,!-_'が"
ENTRIES = [
    *SPECIAL,
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *["東京", "東京都", "##京都", "ab", "##ab", "e", "##語特", "foo", "##bar", "c", "++"],
]
ENTRIES = list(dict.fromkeys(ENTRIES))
# What added tokens can look like: a blank in it, marks, ideographs, capitals, white space around.
ADDED: list[tuple[str, dict[str, bool]]] = [
    ("foo bar", {}),
    ("c++", {"single_word": True}),
    ("東京 a", {}),
    ("AB", {"normalized": False}),
    ("zz", {"lstrip": True, "rstrip": True}),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accents": {"do_lower_case": True, "strip_accents": False},
    "no-chinese": {"tokenize_chinese_chars": False},
    "cased-no-chinese": {"tokenize_chinese_chars": False, "do_lower_case": False},
}
# Rules that no class of transformers has.
RULES: dict[str, Rules] = {
    "latin-accents": Rules(strip_accents=False, latin_accents=True),
    "cased-latin-accents": Rules(lowercase=False, latin_accents=True, chinese_chars=False),
    "turkish": Rules(strip_accents=False, dotted=True),
    "turkish-long": Rules(dotted=True, latin_accents=True, strip_accents=False, max_word=150),
    "long": Rules(max_word=150),
    "short": Rules(lowercase=False, max_word=3),
}
MODELS: dict[str, dict[str, Any]] = {
    "unigram": {},
    "unigram-keeps-blanks": {"remove_extra_whitespaces": False},
    "unigram-identity": {"normalization_rule_name": "identity"},
    "unigram-no-prefix": {"add_dummy_prefix": False},
    "unigram-whole": {"split_by_whitespace": False},
    "unigram-bytes": {"byte_fallback": True, "vocab_size": 420},
    "unigram-nfkc": {"normalization_rule_name": "nfkc"},
    "bpe": {"model_type": "bpe"},
    "bpe-bytes": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 420},
    "bpe-keeps-blanks": {"model_type": "bpe", "remove_extra_whitespaces": False},
    "bpe-identity": {"model_type": "bpe", "normalization_rule_name": "identity"},
    "char": {"model_type": "char"},
}


def wordpiece(folder: Path, said: dict[str, Any], added: bool | int = False) -> Path:
    """A folder with ENTRIES; `added` True adds all of ADDED, a number only that one."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(ENTRIES), encoding="utf-8")
    chosen = ADDED if added is True else [ADDED[added - 1]] if added else []
    decoder = {
        str(len(ENTRIES) + number): {
            "content": content,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False),
            "normalized": True,
            **flags,
        }
        for number, (content, flags) in enumerate(chosen)
    }
    said = {"tokenizer_class": "ElectraTokenizer", **said}
    if decoder:
        for number, token in enumerate(SPECIAL):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            decoder[str(number)] = {"content": token, **flags, "special": True}
        said["added_tokens_decoder"] = decoder
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def sentencepiece_model(path: Path, said: dict[str, Any]) -> Path:
    """A SentencePiece `.model` trained on a few words."""
    words = [
        "the shells she sells",
        "foo bar baz AB ab",
        "été Über ガラス パン",
        "東京都 한글 각 語特",
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{text} {i}" for i in range(60) for text in words]),
        model_writer=path.open("wb"),
        **{
            "vocab_size": 75,
            "hard_vocab_limit": False,
            "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
            "pad_id": 3,
            "minloglevel": 2,
            **said,
        },
    )
    return path


KINDS = [*OPTIONS, *(f"{name}-added" for name in OPTIONS), *MODELS]
KINDS += [*RULES, *(f"{name}-added" for name in RULES)]
KINDS += [f"added-{number}" for number in range(1, len(ADDED) + 1)]
# White space and controls of all sorts, marks, what joins graphemes before and after a blank, letters
# that lower case or normal forms change in number, ideographs, and what ADDED can match.
PIECES = [
    *" \t\n\r\x0b\x1c\x1f\x7f\x85\xa0\xad\u200b\u200d\u2028\u2060\u3000\ufeff\ufffd.!-_'\"[]#<>`",
    *"\u0301\u0302\u0338\u3099\u20e3\ufe0f\u00b4\u2581\u00c9\u0130\u0131\u00df\ufb01\u0344\u0340\u0903",
    *"\u0600\u06dd\u0378\U000110bd\U0001f3fb\u0d4e\u200c\u0e33\u0e4d\uff76\uff9e\u1100\u1161\u11a8\u0915",
    *"\u3400\uf900\ufa0e\u3007\U00020000\U0002b920\U0002f800\U0001f600\U0001f1e9\U00100000",
    *["E\u0301", "\r\n", "x" * 101, "##a", "``", "\u0600 ", " \u0340\u0301", "\u3000\u2581"],
    *["foo bar", "foo", "c++", "東京 a", "AB", "ab", "zz", " zz ", *LETTERS, *" " * 20],
]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), max_size=8)


@pytest.fixture(scope="module")
def make(tmp_path_factory) -> Callable[[str], Tokenizer]:
    """make(kind): the tokenizer of a kind."""
    folder = tmp_path_factory.mktemp("kinds")

    @functools.cache
    def made(kind: str) -> Tokenizer:
        place = folder / kind
        if kind in MODELS:
            return tokenizer.load(sentencepiece_model(place.with_suffix(".model"), MODELS[kind]))
        if kind.startswith("added-"):
            return tokenizer.load(wordpiece(place, {}, added=int(kind[-1])))
        name = kind.removesuffix("-added")
        if name in OPTIONS:
            return tokenizer.load(wordpiece(place, OPTIONS[name], added=name != kind))
        plain = tokenizer.load(wordpiece(place, {}, added=name != kind))
        changed = RULES[name].definition(plain.definition["model"]["vocab"], "[UNK]")
        return Tokenizer({**plain.definition, **changed}, plain.names)

    return made


def flat(loaded: Tokenizer, texts: list[str]) -> list[list[int]]:
    """What encode_flat gives for each text."""
    ids, lengths = loaded.encode_flat(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


def random_texts(count: int) -> list[str]:
    """The same texts every time."""
    draw = random.Random(15)
    return ["".join(draw.choices(PIECES, k=draw.randint(0, 14))) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(texts=TEXTS)
def test_every_way_gives_the_same_ids(make, kind, texts):
    """Catches a cache that cuts where the tokenizer does not: at ideographs that it keeps together,
    between blanks that it keeps, inside added tokens, beside a character that combines."""
    loaded = make(kind)
    expected = loaded.encode_batch(texts)
    assert [loaded.encode(text) for text in texts] == expected
    assert [ids.tolist() for ids, _ in loaded.encode_offsets(texts)] == expected
    assert flat(loaded, texts) == expected
    assert flat(loaded, texts) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts(make, kind):
    """Catches the same in combinations too rare for a few examples."""
    loaded, texts = make(kind), random_texts(600)
    assert flat(loaded, texts) == loaded.encode_batch(texts)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_agrees(make, kind, tmp_path):
    """Catches rules or added tokens that are lost on the way to transformers, or read otherwise."""
    from transformers import AutoTokenizer

    loaded, texts = make(kind), random_texts(300)
    loaded.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs(texts, add_special_tokens=False)["input_ids"] == loaded.encode_batch(texts)
    assert len(theirs) == loaded.size
    again = tokenizer.load(tmp_path)
    assert (again.hash, again.size) == (loaded.hash, loaded.size)


def test_where_the_cache_works(make):
    """Catches a proof that no longer holds for anything: the ids stay right, and encoding gets slow."""

    def cuts(kind: str) -> int:
        loaded = make(kind)
        return len(borders.find(loaded.definition, loaded.normalize).cuts)

    assert {kind: cuts(kind) for kind in OPTIONS} == dict.fromkeys(OPTIONS, 2)
    ours = {name: 1 if rules.latin_accents else 2 for name, rules in RULES.items()}
    assert {kind: cuts(kind) for kind in RULES} == ours
    assert cuts("added-2") == cuts("added-4") == 1 and cuts("added-1") == cuts("added-3") == 0
    whole = {"unigram-keeps-blanks", "unigram-no-prefix", "unigram-whole", "bpe-keeps-blanks"}
    assert {kind for kind in MODELS if not cuts(kind)} == whole
