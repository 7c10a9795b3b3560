"""A small vocabulary in which every word can be spelt, and files made on the spot."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_jax.text import tokenizer
from electra_jax.text.tokenizer import Tokenizer

WORDS = (
    "the a an of in was to and is are born john smith who when where how many city year new york",
    "what not he she it red blue cat dog mat sat on",
)
CHINESE = "我你他是在的中国人大学北京上海年月日一二三"


@pytest.fixture(scope="session")
def speller(tmp_path_factory) -> Tokenizer:
    """An uncased WordPiece tokenizer: some words, every letter and digit, punctuation, Chinese."""
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *CHINESE]
    tokens += [
        *letters,
        *(f"##{letter}" for letter in letters),
        *(w for line in WORDS for w in line.split() if len(w) > 1),
    ]
    path = tmp_path_factory.mktemp("speller") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return tokenizer.load(path)


@pytest.fixture
def made(tmp_path) -> Callable[[str, str], str]:
    """made(name, text): the path of a new file with this text."""

    def write(name: str, text: str) -> str:
        path: Path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
