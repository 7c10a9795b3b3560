"""Vocabularies: the same bytes every time, the size asked for, and no surprises inside."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.spec import UserError
from electra_jax.text import alphabet, tokenizer, vocab
from electra_jax.text.sources import sample

TRAIN = """
import sys
from electra_jax.text import vocab
vocab.train([sys.argv[1]], sys.argv[2], int(sys.argv[3]), sys.argv[4])
"""


def train_apart(corpus: Path, kind: str, size: int, output: Path, **environment: str) -> dict:
    """File name -> hash of a vocabulary trained in a process of its own."""
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(corpus), kind, str(size), str(output)],
        env={**os.environ, **environment},
        check=True,
    )
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.iterdir())
    }


def same_bytes(corpus: Path, kind: str, size: int, tmp_path: Path, times: int) -> None:
    variants = [
        {"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        {"PYTHONHASHSEED": "2", "RAYON_NUM_THREADS": "4", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "3", "TOKENIZERS_PARALLELISM": "false", "TMPDIR": str(tmp_path)},
    ]
    found = [
        train_apart(corpus, kind, size, tmp_path / str(i), **variants[i % 3]) for i in range(times)
    ]
    assert all(files == found[0] for files in found)
    assert len(found[0]) == 4


@pytest.mark.parametrize("kind", vocab.KINDS)
def test_same_bytes_in_separate_processes(small_corpus, tmp_path, kind):
    """Catches an order of a hash map, a number of threads, or a temporary name in the result (the
    WordPiece trainer alone gives another vocabulary at every run)."""
    same_bytes(small_corpus, kind, 200, tmp_path, times=2)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["english", "chinese", "korean", "german"])
@pytest.mark.parametrize("kind", vocab.KINDS)
def test_same_bytes_on_real_text(real, paragraphs, tmp_path, kind, corpus):
    """Catches ties that only a real corpus has."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(paragraphs(corpus, 1000)), encoding="utf-8")
    size = 4000 if corpus == "chinese" else 2500
    same_bytes(path, kind, size if real else 400, tmp_path, times=3)


def test_wordpiece_holds_nothing_but_pieces(trained):
    """Catches letters, given to the trainer as special tokens, that stay special."""
    folder, loaded = trained
    assert loaded.tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if loaded.kind == "wordpiece":
        assert loaded.definition.get("added_tokens") is None
        assert loaded.tokens(loaded.encode("foxed")) != list("foxed")
        lines = (folder / "vocab.txt").read_text().split("\n")
        assert lines == [*loaded.tokens(range(200)), ""]
        assert len(set(lines)) == 201


@pytest.mark.parametrize("kind", vocab.KINDS)
@pytest.mark.parametrize(
    "lowercase,accents", [(True, "strip"), (True, "bert"), (True, None), (False, None)]
)
def test_case_and_accents(small_corpus, tmp_path, kind, lowercase, accents):
    """Catches a vocabulary trained on other text than it will meet."""
    vocab.train([str(small_corpus)], kind, 280, tmp_path / "tok", lowercase, accents)
    loaded = tokenizer.load(tmp_path / "tok")
    assert loaded.lowercase == lowercase
    assert loaded.strip_accents == (accents in ("strip", "bert"))
    entries = "".join(loaded.tokens(range(5, 280)))
    assert (entries == entries.lower()) == lowercase
    assert ("\u00e9" in entries) != loaded.strip_accents
    assert loaded.special.unk not in loaded.encode("Größe Öl caf\u00e9")


@pytest.mark.parametrize("kind", vocab.KINDS)
def test_corpus_too_small(small_corpus, tmp_path, kind):
    """Catches a vocabulary that is smaller than asked for, or a refusal that helps nobody."""
    with pytest.raises(UserError, match=rf"--size 30522 does not .*{kind} allows") as error:
        vocab.train([str(small_corpus)], kind, 30522, tmp_path / "tok")
    assert not (tmp_path / "tok").exists() and not any(tmp_path.iterdir())
    ends = [
        int(number.replace(",", ""))
        for number in re.findall(r"allows ([\d,]+) to ([\d,]+) ", str(error.value))[0]
    ]
    for end in ends:
        vocab.train([str(small_corpus)], kind, end, tmp_path / str(end))
        assert tokenizer.load(tmp_path / str(end)).size == end
    for beyond in (ends[0] - 1, ends[1] + 1):  # said by all refusals alike
        with pytest.raises(UserError, match=rf"(allows {ends[0]:,} to {ends[1]:,}|is not 6 to)"):
            vocab.train([str(small_corpus)], kind, beyond, tmp_path / "tok")


@pytest.mark.parametrize("kind", vocab.KINDS)
def test_size_too_small(small_corpus, tmp_path, kind):
    """Catches a size below the characters of the corpus that ends in a crash."""
    for absurd in (-1, 5, 5_000_000_000, 10**30):
        with pytest.raises(UserError, match=f"--size {absurd} is not 6 to 5,000,000"):
            vocab.train([str(small_corpus)], kind, absurd, tmp_path / "tok")
    try:
        vocab.train([str(small_corpus)], kind, 12, tmp_path / "tok")
        assert tokenizer.load(tmp_path / "tok").size == 12
    except UserError as error:
        assert "--size 12 does not suit this text" in str(error)


def test_refuses_before_the_work(small_corpus, tmp_path):
    """Catches faults that show only after minutes of training."""
    corpus = [str(small_corpus)]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="already exists"):
        vocab.train(corpus, "bpe", 200, tmp_path / "full")
    with pytest.raises(UserError, match="Did you mean 'wordpiece'"):
        vocab.train(corpus, "wordpeace", 200, tmp_path / "tok")
    with pytest.raises(UserError, match="--sample-bytes 0"):
        vocab.train(corpus, "bpe", 200, tmp_path / "tok", sample_bytes=0)
    with pytest.raises(UserError, match="matches no file"):
        vocab.train([str(tmp_path / "*.gz")], "bpe", 200, tmp_path / "tok")


@pytest.mark.parametrize("kind", vocab.KINDS)
def test_content_at_fault(tmp_path, kind):
    """Catches an error of the reader that is lost, or a crash, inside a trainer's callback."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"some words\n" * 300_000 + b"\xff")
    with pytest.raises(UserError, match="byte 3300000"):
        vocab.train([str(path)], kind, 200, tmp_path / "tok")


def test_sample_is_even_and_repeatable(tmp_path):
    """Catches a sample that is the head of the corpus, or another one every time."""
    for name in "ab":
        lines = [f"{name} {i:05d}" for i in range(10_000)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    drawn = sample.Paragraphs(paths, "text", 14_000)
    texts = list(drawn)
    assert texts == list(drawn) == list(sample.Paragraphs(paths, "text", 14_000))
    assert texts == sorted(texts) and len(set(texts)) == len(texts) == 2000
    assert 900 < sum(text[0] == "a" for text in texts) < 1100
    assert 900 < sum(int(text[2:]) < 5000 for text in texts) < 1100
    everything = list(sample.Paragraphs(paths, "text"))
    assert everything == list(sample.Paragraphs(paths, "text", 10**9)) and len(everything) == 20_000


def test_alphabet():
    """Catches characters of a big script cut off at the thousand that serve English."""
    counts = {chr(0x4E00 + i): 100 for i in range(3000)}
    assert len(alphabet.choose(counts, 30_000)) == 2999  # 99.95 percent
    assert len(alphabet.choose(counts, 4000)) == 2000  # half
    assert len(alphabet.choose(counts, 4000, lambda c: [c, f"##{c}"])) == 1000
    latin = {chr(97 + i): 1000 for i in range(26)} | {"\u00e9": 2, "\u00e8": 1}
    assert "".join(alphabet.choose(latin, 3000)) == "abcdefghijklmnopqrstuvwxyz\u00e9"


def test_chinese_wordpiece(tmp_path):
    """Catches a refusal where nothing can be merged and there are characters enough."""
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(0x4E00 + i % 700) for i in range(3000)), encoding="utf-8")
    vocab.train([str(path)], "wordpiece", 705, tmp_path / "tok")
    loaded = tokenizer.load(tmp_path / "tok")
    assert loaded.special.unk not in loaded.encode(path.read_text(encoding="utf-8"))
    with pytest.raises(UserError, match="allows 6 to 705"):
        vocab.train([str(path)], "wordpiece", 706, tmp_path / "other")


def test_long_lines_are_not_left_out(tmp_path):
    """Catches SentencePiece's limit of 4,192 bytes, above which a line is skipped silently."""
    path = tmp_path / "a.txt"
    path.write_text("the usual words here\n" * 50 + "zebra crossing " * 2000 + "\n" + "東京" * 3000)
    vocab.train([str(path)], "bpe", 60, tmp_path / "tok")
    loaded = tokenizer.load(tmp_path / "tok")
    assert loaded.special.unk not in loaded.encode("zebra 東京")
