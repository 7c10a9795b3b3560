"""What `prepare` tells the user about the text and the tokenizer."""

import json
from pathlib import Path

import pytest

from electra_jax.data.prepare import build
from electra_jax.text import vocab

TEXTS = {
    "chinese": "我们今天在北京吃饭，明天去上海看朋友。",
    "japanese": "私は今日東京でご飯を食べて、明日は大阪の友達に会う。",
    "korean": "나는 오늘 漢字를 공부하고 내일은 친구를 만난다",
}


def prepare(tmp_path: Path, text: str, train_on: str | None = None, **options) -> dict:
    """The counts of both splits together."""
    for name, content in (("text", text), ("other", train_on or text)):
        lines = "".join(f"{content} {i}\n\n" for i in range(60))
        (tmp_path / f"{name}.txt").write_text(lines, encoding="utf-8")
    vocab.train([str(tmp_path / "other.txt")], "wordpiece", 30, tmp_path / "tok")
    corpus = [str(tmp_path / "text.txt")]
    build.prepare(corpus, tmp_path / "tok", 16, tmp_path / "data", workers=1, **options)
    counts = json.loads((tmp_path / "data" / "fingerprint.json").read_text())["counts"]
    return {name: counts["train"][name] + counts["valid"][name] for name in counts["train"]}


@pytest.mark.parametrize("language", TEXTS)
def test_jieba_is_for_chinese(tmp_path, capsys, language):
    """Catches advice to find the words of Chinese given for Korean and Japanese text."""
    prepare(tmp_path, TEXTS[language])
    assert ("jieba" in capsys.readouterr().err) == (language == "chinese")


def test_long_words_are_counted_by_character(tmp_path, capsys):
    """Catches 90% of a corpus that is lost in 5% of its tokens without a word."""
    text = "ab cd ab cd ab cd " * 10 + "abcd" * 400
    counts = prepare(tmp_path, text, "ab cd ab cd")
    assert counts["unknown_characters"] >= counts["too_long_characters"] == 60 * 1600
    said = capsys.readouterr().err
    assert "words of more than 100 characters" in said and "--max-word" in said
    assert "for this language" not in said


def test_a_longer_limit(tmp_path, capsys):
    """Catches a limit that is not kept in the prepared folder."""
    counts = prepare(tmp_path, "ab cd " * 10 + "abcd" * 40, "abcd ab cd ab dc", max_word=200)
    assert counts["too_long_characters"] == 0 and counts["unknown_characters"] < 60 * 160
    saved = json.loads((tmp_path / "data" / "tokenizer" / "tokenizer.json").read_text())
    assert saved["model"]["max_input_chars_per_word"] == 200
