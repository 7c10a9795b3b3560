"""A small corpus, a small vocabulary, and a folder prepared from them."""

import random
from pathlib import Path

import pytest

from electra_jax.data.prepare import build

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "was",
    "he",
    "for",
    "with",
    "his",
    "be",
    "by",
    "this",
]
ENDINGS = ["##s", "##ed", "##ing", "##ly"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")


@pytest.fixture(scope="session")
def vocab(tmp_path_factory) -> Path:
    """A vocab.txt whose words are a few common ones, letters, endings and some Chinese."""
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    chinese = list("我爱北京天安门上太阳升")
    pieces = [*LETTERS, *(f"##{c}" for c in LETTERS), ".", ","]
    entries = [*special, *WORDS, *ENDINGS, *pieces, *chinese]
    path.write_text("\n".join(dict.fromkeys(entries)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> list[str]:
    """Two text files of 150 documents each; every document begins with a number of its own."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    paths = []
    for file in "ab":
        lines = []
        for number in range(150):
            lines.append(f"{file} {number}")
            for _ in range(draw.randrange(1, 8)):
                words = draw.choices(WORDS, k=draw.randrange(3, 40))
                lines.append(" ".join(w + draw.choice(["", "", "", "ing"]) for w in words) + ".")
            lines.append("")
        path = folder / f"{file}.txt"
        path.write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    return paths


@pytest.fixture(scope="session")
def folder(tmp_path_factory, vocab, corpus) -> Path:
    """The corpus prepared in rows of 32, a tenth of it held out."""
    path = tmp_path_factory.mktemp("prepared") / "rows"
    build.prepare(corpus, vocab, 32, path, valid_fraction=0.1, workers=1)
    return path
