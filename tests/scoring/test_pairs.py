"""Minimal pairs: what counts as right, and what a file of them has to be."""

import gzip
import json
from pathlib import Path

import pytest

from electra_jax.cli.commands import main
from electra_jax.scoring import model, pairs, score, texts
from electra_jax.spec import UserError

LINES = [
    {
        "sentence_good": "the cat sits",
        "sentence_bad": "the cat sit",
        "UID": "agreement",
        "field": "syntax",
    },
    {
        "sentence_good": "the cats sit",
        "sentence_bad": "the cats sits",
        "UID": "agreement",
        "field": "syntax",
    },
    {"sentence_good": "a red mat", "sentence_bad": "a mat red", "UID": "order", "field": "syntax"},
    {"sentence_good": "a mat", "sentence_bad": "A mat", "UID": "order", "field": "syntax"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Pairs, the last of which is a tie: the vocabulary knows no case."""
    path = tmp_path / "pairs.jsonl.gz"
    lines = (json.dumps(line | {"linguistics_term": "all"}) for line in LINES)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_the_tally(masked_lm: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tie that counts as right, a pair whose sentences are exchanged, a paradigm that gets another's pairs."""
    scorer = model.read(str(masked_lm / "run"))
    both = [line[name] for line in LINES for name in pairs.SENTENCES]
    encoded = texts.encode(texts.given(both), scorer.tokenizer, scorer.room, False)
    total = [one.total for one in score.score(scorer, encoded)]
    right = [good > bad for good, bad in zip(total[::2], total[1::2], strict=True)]
    judged = pairs.judge(scorer, pairs.read(str(file)))
    assert judged["total"] == {
        "accuracy": sum(right) / 4, "correct": sum(right), "pairs": 4, "ties": 1,
    }  # fmt: skip
    assert not right[3]
    assert {name: one["correct"] for name, one in judged["UID"].items()} == {
        "agreement": sum(right[:2]),
        "order": int(right[2]),
    }
    assert main(["score-text", "--model", str(masked_lm / "run"), "--pairs", str(file)]) == 0
    out = capsys.readouterr().out
    assert "chance: 50.0%" in out and "by linguistics_term" in out
    assert (
        main(["score-text", "--model", str(masked_lm / "run"), "--pairs", str(file), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == judged


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"sentence_good": "a"}\n', "pairs:1: sentence_bad is missing"),
        ('{"sentence_good": "a", "sentence_bad": 3}\n', "pairs:1: sentence_bad is 3"),
        ("\n[1]\n", "pairs:2 is list"),
        ("{\n", "pairs:1 is no JSON"),
        ("\n", "has no pairs"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, expected: str) -> None:
    """A file of something else that is scored, or met by a trace."""
    path = tmp_path / "pairs"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        pairs.read(str(path))
