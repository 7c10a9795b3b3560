"""What a card shows of the held-out text: whole sentences, a word masked in place, the language of a script."""

import pytest

from electra_jax.convert import example
from electra_jax.data.prepare import build
from electra_jax.data.source import open_prepared
from electra_jax.text import tokenizer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("두 종류가 있는 것으로 여겨진다.", "ko"),
        ("最大的弹幕网站。", "zh"),
        ("東京は日本の首都です。", "ja"),
        ("ภาษาไทย", "th"),
        ("Αθήνα είναι η πρωτεύουσα (Wikipedia)", "el"),
        ("The Αθήνα of all things", ""),
        ("Ein Satz, der keiner Schrift allein gehört.", ""),
        ("Предложение", ""),
        ("12 34 ...", ""),
        ("", ""),
    ],
)
def test_the_language_is_told_by_a_script_that_one_language_has(text: str, code: str):
    """Catches a guess where many languages share the script, and Japanese taken for Chinese."""
    assert example.language(text) == code


@pytest.fixture
def words(tmp_path):
    """Pieces of a few words; `un ##known` is one word of two."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "the", "river", "runs", "to"]
    entries += ["sea", "un", "##known", "old"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n")
    return tokenizer.load(tmp_path / "vocab.txt")


def test_a_word_is_masked_in_place(words):
    """Catches a mask in place of half a word, lost blanks, and punctuation that is masked."""
    text = "the river runs, to the unknown sea."
    ids = words.encode(text)
    bounds = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    found = example.masked(ids, bounds, words)
    assert found is not None
    assert found.text == text and found.masked == "the river runs, to the [MASK] sea."
    assert example.masked(words.encode("the ."), [0, 1, 2], words) is None


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "old sea. the river runs to the unknown sea. to the",
            "the river runs to the unknown sea.",
        ),
        ("the old river runs to the unknown sea the old", "the old river runs to"),
    ],
)
def test_a_sentence_of_the_held_out_text(words, tmp_path, line: str, shown: str):
    """Catches a sentence that begins in its middle, and no example at all for text without full stops."""
    (tmp_path / "c.txt").write_text(f"{line}\n\n" * 50)
    build.prepare([str(tmp_path / "c.txt")], tmp_path / "vocab.txt", 32, tmp_path / "data")
    found, language = example.of(open_prepared(tmp_path / "data"), words)
    assert found is not None and language == ""
    assert found.text.startswith(shown) and "[MASK]" in found.masked
