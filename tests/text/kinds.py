"""Small tokenizers of every kind, for tests that hold all of them to one rule."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece

from electra_jax.text import tokenizer
from electra_jax.text.tokenizer import Tokenizer

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


def every(folder: Path) -> dict[str, Callable[[], Tokenizer]]:
    """Name -> what makes the tokenizer, for all kinds."""
    makers: dict[str, Callable[[], Tokenizer]] = {}
    for name, said in OPTIONS.items():
        makers[name] = lambda name=name, said=said: tokenizer.load(wordpiece(folder / name, said))
        makers[f"{name}-added"] = lambda name=name, said=said: tokenizer.load(
            wordpiece(folder / f"{name}-added", said, added=True)
        )
    for number in range(1, len(ADDED) + 1):
        makers[f"added-{number}"] = lambda number=number: tokenizer.load(
            wordpiece(folder / f"added-{number}", {}, added=number)
        )
    for name, said in MODELS.items():
        makers[name] = lambda name=name, said=said: tokenizer.load(
            sentencepiece_model(folder / f"{name}.model", said)
        )
    return makers
