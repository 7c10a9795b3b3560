"""Wrapped text: known by its lines, joined to the paragraphs it was, in documents of chapters."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_jax.text.sources import documents, layout

SENTENCE = "it is a truth universally acknowledged that a man in possession of a good fortune"
WORDS = SENTENCE.split(" ")
PARAGRAPH = " ".join(WORDS * 8) + "."


def book(chapters: int) -> str:
    """Chapters as Project Gutenberg sets them: headings apart, blank lines between paragraphs."""
    text = textwrap.fill(PARAGRAPH, 72)
    return "\n\n\n\n\n".join(f"Chapter {n}\n\n\n{text}\n\n{text}" for n in range(chapters))


def test_chapters_are_documents(tmp_path):
    """Catches lines taken for paragraphs, headings for documents, and a book lost in one row's worth."""
    path = tmp_path / "book.txt"
    path.write_text(book(3))
    found = list(documents.read(str(path), join_lines=True))
    assert found == [[f"Chapter {n}", PARAGRAPH, PARAGRAPH] for n in range(3)]
    assert documents.wrap_width(str(path)) == 72
    path.write_text(f"{PARAGRAPH}\n\n" * 3)
    assert list(documents.read(str(path), join_lines=True)) == [[PARAGRAPH] * 3]


def test_records_keep_their_borders(tmp_path):
    """Catches wrapped text in JSON lines that is not joined, or joined beyond its record."""
    import json

    path = tmp_path / "a.jsonl"
    texts = ["one\ntwo\n\nthree", "four\nfive"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = list(documents.read(str(path), join_lines=True))
    assert found == [["one two", "three"], ["four five"]]
    path.write_text(json.dumps({"text": book(2)}) + "\n")
    assert documents.wrap_width(str(path)) == 72


@given(st.lists(st.text("abcäß.,", min_size=1, max_size=12), min_size=1), st.integers(12, 80))
def test_joining_undoes_wrapping(words, width):
    """Catches blanks lost or doubled at the ends of lines."""
    lines = textwrap.wrap(" ".join(words), width)
    assert layout.paragraphs(lines, join=True) == [" ".join(words)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["我爱北京", "天安门。", "上"], "我爱北京天安门。上"),
        (["한국어", "문장"], "한국어 문장"),
        (["a well-", "known man"], "a well-known man"),
        (["he said--", "nothing"], "he said--nothing"),
        (["he said --", "nothing"], "he said -- nothing"),
        (["Wörter\u00ad", "buch"], "Wörterbuch"),
        (["我爱", "Peking"], "我爱 Peking"),
    ],
)
def test_what_stands_between_lines(lines, expected):
    """Catches blanks inside of Chinese or a compound, and words run together elsewhere."""
    assert layout.paragraphs(lines, join=True) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        f"{PARAGRAPH}\n{PARAGRAPH[:200]}\n" * 30,  # a paragraph a line
        "\n".join(
            " ".join(WORDS[: 2 + n % 12]).capitalize() + "." for n in range(90)
        ),  # a sentence
        "\n".join(" ".join(WORDS[: 3 + n % 4]) for n in range(90)),  # verse
    ],
)
def test_other_text_is_not_called_wrapped(text):
    """Catches advice to join lines that are paragraphs, sentences or verses."""
    assert layout.wrap_width(text.split("\n")) is None
