"""The quickstart's own parts: its corpus, the sentences it picks, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from electra_jax import quickstart, verdict
from electra_jax.spec import UserError
from electra_jax.text.sources import builtin

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def documents() -> list[list[str]]:
    """Some seconds of parsing, once."""
    return builtin.documents()


@pytest.mark.slow
def test_the_corpus_is_english_prose_without_repeats(documents: list[list[str]]):
    """Catches an empty or tiny corpus, code taken for prose, and text that is both trained on and held out."""
    paragraphs = [paragraph for document in documents for paragraph in document]
    assert len(documents) > 200
    assert sum(map(len, paragraphs)) > 500_000
    assert len(set(paragraphs)) == len(paragraphs)
    assert not [p for p in paragraphs if "\n" in p or p.startswith(">>>")]
    common = sum(" the " in paragraph for paragraph in paragraphs)
    assert common > 0.3 * len(paragraphs)


@pytest.mark.slow
def test_the_corpus_is_the_same_each_time(documents: list[list[str]]):
    """Catches an order that depends on the file system or on hashing, which would change the vocabulary."""
    script = "import json; from electra_jax.text.sources import builtin; print(json.dumps(builtin.documents()))"
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True
    )
    assert json.loads(other.stdout) == documents


def test_a_python_without_documentation_says_so(monkeypatch: pytest.MonkeyPatch):
    """Catches a traceback on a slimmed Python."""
    monkeypatch.setattr(builtin, "_topics", lambda: iter(()))
    monkeypatch.setattr(builtin, "_docstrings", lambda: iter(()))
    with pytest.raises(UserError, match="--input"):
        builtin.documents()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [(["nothing*.txt"], "nothing"), (["empty.txt"], "empty"), (["binary.txt"], "binary.txt")],
)
def test_bad_input_is_refused_before_work(
    inputs: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches a folder left behind by input that could not be read."""
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("binary.txt").write_bytes(b"\x00\xff\x00\xfe" * 100)
    with pytest.raises(UserError, match=expected):
        quickstart.run("tour", inputs)
    assert not Path("tour").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path):
    """Catches a second quickstart that writes over the first."""
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="already exists"):
        quickstart.run(str(tmp_path))


class Letters:
    """A tokenizer whose token i is the i-th letter, '.' for 26, specials from 27 on."""

    special = (27, 28)

    def decode(self, ids: list[int]) -> str:
        return "".join("abcdefghijklmnopqrstuvwxyz.?"[i] if i < 27 else "" for i in ids)


def test_sentences_are_whole(monkeypatch: pytest.MonkeyPatch):
    """Catches a sentence that begins in the middle, crosses a segment, or loses a word's second token."""
    monkeypatch.setattr(verdict, "SHORTEST", 3)
    rows = {
        #                [CLS] a  b  .  c  d  e  .   f  [SEP] g  h  i  .  j  k  .
        "ids": np.array([[27, 0, 1, 26, 2, 3, 4, 26, 5, 28, 6, 7, 8, 26, 9, 10, 26]]),
        "word_starts": np.array([[1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]),
    }
    found = list(verdict._sentences(rows, Letters()))
    assert [s.ids.tolist() for s in found] == [[2, 3, 4, 26], [9, 10, 26]]
    assert found[0].words == [range(2), range(2, 3), range(3, 4)]
