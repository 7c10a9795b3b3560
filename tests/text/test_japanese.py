"""BertJapaneseTokenizer's folders: MeCab's words, then WordPiece or characters, as in transformers."""

import json
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.spec import UserError
from electra_jax.text import japanese, mecab, tokenizer

pytest.importorskip("fugashi")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "東京都に住んでいるガラス屋さんは、ｶﾞﾗｽを２枚売った。",
    "ABC Def ﬁn ﬀ １２３ か\u3099くせい パン",
    "  猫 が\u3000好き \t です\n行",
    "İstanbul ŒΣΑΣ 特別 foo bar 語",
    "㍿㌔ ½ が 𠮷野家\ufe0f e\u0301e\u0301 ①② ﾊﾟﾋﾟ한글각",
    "東京foo bar都 foo bar語特",
    "a" * 101 + " 語",
    *["", " "],
]
LETTERS = sorted({c for t in TEXTS for c in unicodedata.normalize("NFKC", t + t.lower())} - {" "})
LETTERS = [letter for letter in LETTERS if not letter.isspace()]
ENTRIES = [
    *SPECIAL,
    "東京",
    "東京都",
    "ガラス",
    *LETTERS,
    *(f"##{c}" for c in LETTERS if c != "語"),
]
ADDED = {"foo bar": len(ENTRIES), "語特": len(ENTRIES) + 1}
IPADIC = {"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": "ipadic"}}
SAID: dict[str, dict[str, Any]] = {
    "ipadic": IPADIC,
    "dictionary by default": {"word_tokenizer_type": "mecab"},
    "characters": {**IPADIC, "subword_tokenizer_type": "character"},
    "lower case": {**IPADIC, "do_lower_case": True, "never_split": ["ABC"]},
    "lower characters": {
        **IPADIC,
        "do_lower_case": True,
        "subword_tokenizer_type": "character",
    },
    "as written": {
        "word_tokenizer_type": "mecab",
        "mecab_kwargs": {"mecab_dic": "unidic_lite", "normalize_text": False},
    },
    "options": {
        "word_tokenizer_type": "mecab",
        "mecab_kwargs": {"mecab_dic": "ipadic", "mecab_option": "-O wakati"},
    },
    "no words": {"do_word_tokenize": False},
    "no words, characters": {"do_word_tokenize": False, "subword_tokenizer_type": "character"},
}


def folder(path: Path, said: dict[str, Any], added: dict[str, int] | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(ENTRIES), encoding="utf-8")
    said = {"tokenizer_class": "BertJapaneseTokenizer", **said}
    (path / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    if added:
        (path / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    return path


@pytest.mark.parametrize("added", [None, ADDED], ids=["", "added"])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_every_way_gives_the_same_ids(tmp_path, said, added):
    """Catches a way to encode that goes past the words, and places in the text that are not the tokens'."""
    loaded = tokenizer.load(folder(tmp_path / "a", said, added))
    expected = loaded.encode_batch(TEXTS)
    for again in (loaded, pickle.loads(pickle.dumps(loaded))):
        assert [again.encode(text) for text in TEXTS] == expected
        for _ in range(2):
            ids, lengths = again.encode_flat(TEXTS)
            found = np.split(ids, np.cumsum(lengths)[:-1])
            assert [part.tolist() for part in found] == expected
    for text, (ids, places) in zip(TEXTS, loaded.encode_offsets(TEXTS), strict=True):
        assert ids.tolist() == loaded.encode(text)
        for token, (start, stop) in zip(loaded.tokens(ids), places.tolist(), strict=True):
            shown = unicodedata.normalize("NFKC", text[start:stop]).lower()
            bare = token.removeprefix("##").lower()
            assert token == "[UNK]" or bare in shown or shown in bare
    assert [ids.tolist() for ids, _ in loaded.encode_offsets(["猫\0犬"])] == [
        loaded.encode("猫\0犬")
    ]
    if added:
        assert loaded.size == len(ENTRIES) + 2
        assert {*ADDED.values()} <= set(loaded.encode("東京foo bar 語特"))


@pytest.mark.torch
@pytest.mark.parametrize("added", [None, ADDED], ids=["", "added"])
@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_transformers_agrees(tmp_path, said, added):
    """Catches any difference from BertJapaneseTokenizer: normal forms, dictionary, case, characters."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folder(tmp_path / "a", said, added)))
    assert type(theirs).__name__ == japanese.CLASS
    ours = tokenizer.load(tmp_path / "a")
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert ours.encode_batch(TEXTS) == expected
    assert ours.size == len(theirs)
    ours.save(tmp_path / "b", max_length=128)
    saved = AutoTokenizer.from_pretrained(str(tmp_path / "b"))
    assert [saved(text, add_special_tokens=False)["input_ids"] for text in TEXTS] == expected
    assert (len(saved), saved.model_max_length) == (ours.size, 128)
    pair = saved("猫", "犬")
    assert pair["token_type_ids"][-1] == 1 and pair["input_ids"][0] == ours.special.cls
    saved.save_pretrained(tmp_path / "c")
    for name in "bc":
        again = tokenizer.load(tmp_path / name)
        assert (again.hash, again.encode_batch(TEXTS)) == (ours.hash, expected)


def test_the_class_may_stand_beside_the_model(tmp_path):
    """Catches a folder of which only config.json names the class (as the first Japanese BERTs), taken for BERT."""
    said = tokenizer.load(folder(tmp_path / "a", IPADIC))
    folder(tmp_path / "b", {**IPADIC, "tokenizer_class": None})
    config = {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    assert tokenizer.load(tmp_path / "b").hash == said.hash


def test_rules_are_part_of_the_hash(tmp_path):
    """Catches data prepared with other words that passes for the same."""
    folders = [folder(tmp_path / str(i), said) for i, said in enumerate(SAID.values())]
    assert len({tokenizer.load(path).hash for path in folders}) == len(SAID)
    loaded = tokenizer.load(folders[0])
    assert (loaded.lowercase, loaded.strip_accents) == (False, False)
    assert tokenizer.load(folders[0], lowercase=True).lowercase


def test_text_never_spells_a_special_token(tmp_path):
    """Catches a literal "[MASK]" that becomes the special id because no mark is cut off a word here."""
    for number, said in enumerate(SAID.values()):
        loaded = tokenizer.load(folder(tmp_path / str(number), said))
        for text in ("[MASK]", "a [CLS] b", "東京[SEP]都"):
            assert not (set(loaded.special) - {loaded.special.unk}) & set(loaded.encode(text))


def test_refuses_what_it_does_not_know(tmp_path):
    """Catches a folder with other words (Sudachi, Juman) or another dictionary, encoded as if by MeCab."""

    def refused(said: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            tokenizer.load(folder(tmp_path / "a", said))

    refused({"word_tokenizer_type": "sudachi"}, "word_tokenizer_type 'sudachi'; the one supported")
    refused({}, "word_tokenizer_type 'basic'")
    refused(
        {**IPADIC, "subword_tokenizer_type": "sentencepiece"}, "those supported are 'wordpiece'"
    )
    refused({**IPADIC, "mecab_kwargs": {"mecab_dic": "neologd"}}, "unknown value of MeCab dict")
    refused({**IPADIC, "mecab_kwargs": "ipadic"}, "mecab_kwargs 'ipadic' .* damaged")
    nowhere = {"mecab_dic": None, "mecab_option": "-d nowhere"}
    refused({**IPADIC, "mecab_kwargs": nowhere}, "MeCab cannot open a dictionary .* -d nowhere")
    with pytest.raises(UserError, match="does not strip accents"):
        tokenizer.load(folder(tmp_path / "a", IPADIC), strip_accents=True)


def test_segmenter():
    """Catches a segmenter that does not travel to worker processes, or loses text behind a NUL."""
    segmenter = mecab.Segmenter(dictionary="ipadic")
    again = pickle.loads(pickle.dumps(segmenter))
    assert again == segmenter == mecab.Segmenter.from_description(segmenter.described())
    assert again("東京都に住む。") == ["東京", "都", "に", "住む", "。"]
    assert segmenter("猫\0犬") == ["猫", "犬"]


def test_missing_package(monkeypatch):
    """Catches a traceback where the extra `ja` is not installed."""

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(mecab.importlib, "import_module", absent)
    with pytest.raises(
        UserError, match=r"needs the package fugashi: pip install 'electra_jax\[ja\]'"
    ):
        mecab.Segmenter(dictionary="ipadic", options="--no-cached-tagger")
