"""Copies among documents: which are found, that the first stays, that workers change nothing."""

import random
import sys

import pytest

from electra_jax.data.prepare import build, dedup
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.data.source import open_prepared
from electra_jax.spec import UserError

WORDS = [a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]


def document(seed: int, changed: int = 0) -> list[str]:
    """Sixty random words of a seed in two paragraphs, the last `changed` of them others."""
    words = random.Random(seed).choices(WORDS, k=60)
    words[60 - changed :] = [f"new{i}" for i in range(changed)]
    return [" ".join(words[:30]), " ".join(words[30:])]


DOCUMENTS = [
    document(1),
    document(2),
    document(1),  # 2: the same
    [" ".join(document(2)).upper()],  # 3: the same but for case and paragraphs
    document(1, changed=2),  # 4: nearly the same
    document(2, changed=30),  # 5: half
    document(3),
    ["short"],
    ["short"],  # 8: the same
]
HELD_OUT = [document(4), document(3), document(4, changed=1)]  # 1: in training, 2: nearly the first


@pytest.fixture
def inputs(tmp_path) -> list[str]:
    """Two files of documents."""
    paths = []
    for name, made in (("a.txt", DOCUMENTS), ("b.txt", HELD_OUT)):
        (tmp_path / name).write_text("\n\n".join("\n".join(lines) for lines in made))
        paths.append(str(tmp_path / name))
    return paths


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("exact", {(0, 2), (0, 3), (0, 8), (1, 1)}),
        ("near", {(0, 2), (0, 3), (0, 4), (0, 8), (1, 1), (1, 2)}),
    ],
)
def test_copies_are_found(inputs, mode, expected):
    """Catches a copy that is kept, an original that is lost, and held-out text that is trained on."""
    assert dedup.duplicates(Corpus(paths=inputs), mode, 1, int) == expected


def test_chinese_is_compared_by_ideographs(tmp_path):
    """Catches text without spaces counting as one long word, which any change makes another."""
    text = "".join(chr(0x4E00 + number) for number in random.Random(0).sample(range(5000), 200))
    (tmp_path / "zh.txt").write_text(f"{text}\n\n{text[:-3]}\n\n{text[100:]}")
    assert dedup.duplicates(Corpus(paths=[str(tmp_path / "zh.txt")]), "near", 1, int) == {(0, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("mode", dedup.MODES)
def test_workers_change_nothing(inputs, mode, vocab, tmp_path, monkeypatch):
    """Catches a choice that depends on which process was faster."""
    prints = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        build.prepare(
            inputs[:1], vocab, 32, out, valid_inputs=inputs[1:], dedup=mode, workers=workers
        )
        prints.append(open_prepared(out).fingerprint)
    assert prints[0] == prints[1]


def test_the_fingerprint_tells(inputs, vocab, tmp_path):
    """Catches copies that are left out without a trace, or that still make rows; numbers that move."""
    for name, mode in (("all", None), ("few", "near")):
        build.prepare(inputs[:1], vocab, 32, tmp_path / name, valid_inputs=inputs[1:], dedup=mode)
    every, few = (open_prepared(tmp_path / name) for name in ("all", "few"))
    assert every.info["options"]["dedup"] is None and few.info["options"]["dedup"] == "near"
    for split, dropped in (("train", 4), ("valid", 2)):
        before, after = every.info["counts"][split], few.info["counts"][split]
        assert (before["duplicates"], after["duplicates"]) == (0, dropped)
        assert after["documents"] == before["documents"] - dropped
        assert after["rows"] < before["rows"]


def test_the_missing_library_is_named_before_the_work(inputs, vocab, tmp_path, monkeypatch):
    """Catches an ImportError in the middle of the work."""
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match=r"electra_jax\[dedup\]"):
        build.prepare(inputs, vocab, 32, tmp_path / "out", dedup="near")
    build.prepare(inputs, vocab, 32, tmp_path / "out", dedup="exact")
