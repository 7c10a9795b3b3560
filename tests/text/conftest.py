"""Corpora and tokenizers that several tests of the text room use."""

from collections.abc import Callable
from pathlib import Path

import pytest

from electra_jax.text import tokenizer, vocab
from electra_jax.text.sources import documents
from electra_jax.text.tokenizer import Tokenizer

CORPORA = {
    "english": "pretrain/valid/enwiki-valid.txt.gz",
    "books": "pretrain/valid/books-valid.txt.gz",
    "german": "pretrain_other/de-novels-00.txt.gz",
    "korean": "pretrain_other/kowiki-00.txt.gz",
    "chinese": "pretrain_other/zhwiki-00.txt.gz",
}
VOCABULARIES = {
    "uncased": "bert-base-uncased-vocab.txt",
    "cased": "bert-base-cased-vocab.txt",
    "chinese": "bert-base-chinese-vocab.txt",
    "korean": "koelectra-vocab-32200.txt",
}
MADE = {  # in their place: language, entries
    "uncased": ("english", 3000),
    "cased": ("german", 3000),
    "chinese": ("chinese", 5000),
    "korean": ("korean", 3000),
}
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "She sells sea shells by the sea shore; the shells she sells are sea shells, I'm sure.",
    "How much wood would a woodchuck chuck, if a woodchuck could chuck wood?",
    "Größe und Maß, Äpfel und Öl: naïve café résumé.",
]


@pytest.fixture(scope="session")
def paragraphs(real, written) -> Callable[[str, int], list[str]]:
    """paragraphs(corpus, n): n paragraphs, taken evenly from the first part of a corpus, or written ones."""
    if real is None:
        return written.paragraphs

    def read(corpus: str, count: int) -> list[str]:
        found: list[str] = []
        for document in documents.read(str(real / CORPORA[corpus])):
            found += document
            if len(found) >= 4 * count:
                break
        return found[::4][:count]

    return read


@pytest.fixture(scope="session")
def vocabularies(real, written, tmp_path_factory) -> dict[str, Path]:
    """The published WordPiece vocabularies by name, or as many made ones."""
    if real is not None:
        return {name: real / "vocab" / file for name, file in VOCABULARIES.items()}
    folder = tmp_path_factory.mktemp("vocabularies")
    for name, (language, size) in MADE.items():
        entries = written.entries(language, size, name == "uncased")
        (folder / f"{name}.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return {name: folder / f"{name}.txt" for name in MADE}


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory) -> Path:
    """A text file of a few sentences, many times over with numbers in between."""
    path = tmp_path_factory.mktemp("corpus") / "a.txt"
    lines = [f"{SENTENCES[i % 4]} {i * i}" for i in range(2000)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session", params=vocab.KINDS)
def trained(request, small_corpus, tmp_path_factory) -> tuple[Path, Tokenizer]:
    """A tokenizer folder of each kind, and the tokenizer loaded from it."""
    folder = tmp_path_factory.mktemp("trained") / request.param
    vocab.train([str(small_corpus)], request.param, 200, folder)
    return folder, tokenizer.load(folder)
