"""Corpora of every format come out as the same documents, and what is not text is refused."""

import bz2
import gzip
import itertools
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from electra_jax.spec import UserError
from electra_jax.text import documents

DOCUMENTS = [["Erster Absatz.", "Zweiter, größer."], ["中文一段。"], ["한국어", "😀 x"]]
TEXT = "\n\n\n".join("\n".join(document) for document in DOCUMENTS) + "\n"
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def read(path: Path, **options) -> list[list[str]]:
    return list(documents.read(str(path), **options))


def parquet(path: Path, columns: dict) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(params=PACK)
def packed(request, tmp_path):
    """Writes bytes under a name, compressed as the parameter says."""

    def write(name: str, data: bytes) -> Path:
        path = tmp_path / f"{name}{request.param}"
        path.write_bytes(PACK[request.param](data))
        return path

    return write


def test_text(packed):
    """Catches paragraphs lost or joined at line ends, blank lines, and the end of the file."""
    assert read(packed("a.txt", TEXT.encode())) == DOCUMENTS
    windows = "\ufeff" + TEXT.replace("\n", "\r\n").rstrip()
    assert read(packed("b.txt", windows.encode())) == DOCUMENTS
    assert read(packed("wiki_00", TEXT.encode())) == DOCUMENTS


def test_only_line_feeds_end_a_paragraph(packed):
    """Catches str.splitlines, which also cuts at U+2028, U+0085, form feeds and others."""
    line = "a\u2028b\x85c\x0bd\x0ce\x1cf"
    assert read(packed("a.txt", f"{line}\n".encode())) == [[line]]


def test_blocks_do_not_show(packed, monkeypatch):
    """Catches characters and lines torn at the border of a block."""
    monkeypatch.setattr("electra_jax.text.compression.BLOCK", 16)
    assert read(packed("a.txt", TEXT.encode())) == DOCUMENTS


def test_json_lines(packed):
    """Catches records that become several documents, and blank lines counted as records."""
    lines = [json.dumps({"n": 1, "body": "\n".join(d)}, ensure_ascii=False) for d in DOCUMENTS]
    data = "\n\n".join(lines).encode()
    assert read(packed("a.jsonl", data), text_key="body") == DOCUMENTS
    escaped = json.dumps({"text": "x\n\n y \n"}) + '\n{"text": "\\ud83d\\ude00 \\ud800."}\n'
    found = read(packed("b.jsonl", escaped.encode()))
    assert found == [["x", "y"], ["😀 \ufffd."]]
    "".join(itertools.chain.from_iterable(found)).encode()  # no half surrogate is left


def test_parquet(packed, tmp_path):
    """Catches a column taken by place instead of name, and batches out of order."""
    texts = ["\n".join(d) for d in DOCUMENTS] * 300
    plain = parquet(tmp_path / "x.parquet", {"id": range(900), "text": texts})
    assert read(packed("a.parquet", plain.read_bytes())) == DOCUMENTS * 300
    coded = {"text": pa.array(texts).dictionary_encode()}
    assert read(parquet(tmp_path / "y.parquet", coded)) == DOCUMENTS * 300


def test_start_and_consumed(packed):
    """Catches a progress line that ends short, and a start counted from one."""
    path, seen = packed("a.txt", TEXT.encode()), []
    assert read(path, start=1, consumed=seen.append) == DOCUMENTS[1:]
    assert sum(seen) == documents.size([str(path)]) == path.stat().st_size


def test_memory_stays_flat(tmp_path):
    """Catches a reader that holds the whole file."""
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"the same paragraph again, and again\n\n" * 400_000))
    tracemalloc.start()
    count = sum(1 for _ in documents.read(str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400_000
    assert peak < 9e6


def test_counts_of_the_shared_corpus(shared):
    """Catches documents merged or split: the corpus states its counts."""
    path = shared / "pretrain" / "valid" / "enwiki-valid.txt.gz"
    found = read(path)
    assert (len(found), sum(map(len, found))) == (254, 3572)


def test_expand(tmp_path, monkeypatch):
    """Catches a file taken twice by two patterns, unsorted results, folders taken for files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("b.txt", "a.txt", "c/[1].txt"):
        (tmp_path / name).write_text("x")
    assert documents.expand(["*.txt", "./a.txt", "tfds:x"]) == ["a.txt", "b.txt", "tfds:x"]
    assert documents.expand(["c/[1].txt", "**/*.txt"]) == ["a.txt", "b.txt", "c/[1].txt"]
    assert documents.expand("*") == ["a.txt", "b.txt"]
    with pytest.raises(UserError, match="'d/\\*.txt' matches no file"):
        documents.expand(["a.txt", "d/*.txt"])
    with pytest.raises(UserError, match=r"names folders.*'c/\*\.txt\.gz'"):
        documents.expand(["c/"])
    with pytest.raises(UserError, match="no input was given"):
        documents.expand([])


def fails(path: Path, message: str, at_opening: bool = True, **options) -> None:
    """Both `read` and, when the opening shows it, `check` refuse `path` with `message`."""
    with pytest.raises(UserError, match=message) as error:
        read(path, **options)
    assert str(path) in str(error.value)
    if at_opening:
        with pytest.raises(UserError, match=message):
            documents.check([str(path)], **options)


def test_refuses_what_is_not_text(packed):
    """Catches binary or wrongly encoded files that become garbage tokens."""
    fails(packed("a.txt", b"ab\n\x00c"), "byte 3 is NUL")
    fails(packed("b.txt", b"ab\ncd\nM\xfcller\n"), r"byte 7 \(0xfc, line 3\)")
    fails(packed("c.txt", "\ufeffab\n\ud800".encode("utf-8", "surrogatepass")), "byte 6")
    fails(packed("d.txt", "hello".encode("utf-16")), "UTF-16")
    fails(packed("e.txt", gzip.compress(b"x")), "gzip data; name it .gz")
    fails(packed("f.txt", b"ab\nc\xe4\xb8"), r"byte 4 \(0xe4, line 2\)")


def test_says_the_byte_far_into_the_file(packed, monkeypatch):
    """Catches offsets counted from the block or the compressed file instead of the content."""
    monkeypatch.setattr("electra_jax.text.compression.BLOCK", 64)
    data = b"0123456789\n" * 100 + b"0123\xff\n"
    fails(packed("a.txt", data), r"byte 1104 \(0xff, line 101\)", at_opening=False)
    data = b"x" * 1000 + b"\n\0"
    fails(packed("b.txt", data), "byte 1001 is NUL", at_opening=False)


def test_refuses_damaged_compression(tmp_path):
    """Catches a download cut short that is taken for a complete corpus (Zstandard's own stream
    reader does), and damage inside."""
    for suffix, pack in list(PACK.items())[1:]:
        whole = pack(noise())
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(whole[: len(whole) // 2])
        fails(path, r"is cut short: its \.\w+ data end after \d+ bytes", at_opening=False)
        path.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
        with pytest.raises(UserError, match="damaged|not UTF-8|NUL"):
            read(path)
        path.write_bytes(b"plain text\n")
        fails(path, "damaged")
        path.write_bytes(whole + whole)  # two members, as `cat a.gz b.gz` makes
        assert len(read(path)[0]) == 2 * 60_000
    path = tmp_path / "b.txt.gz"
    path.write_bytes(whole)
    fails(path, "damaged")


def noise() -> bytes:
    """Lines that do not compress to nothing: 400,000 numbers of a congruential sequence."""
    numbers, state = [], 1
    for _ in range(60_000):
        state = state * 69069 % 2**32
        numbers.append(f"{state}\n")
    return "".join(numbers).encode()


def test_refuses_empty_and_missing(packed, tmp_path):
    """Catches an empty input that would silently add nothing."""
    fails(packed("a.txt", b""), "is empty")
    fails(packed("b.txt", b"\n \n\n"), "is empty", at_opening=False)
    fails(packed("c.jsonl", b'{"text": " "}\n'), "is empty", at_opening=False)
    fails(tmp_path / "none.txt", "does not exist|cannot read")
    with pytest.raises(UserError, match="names folders"):
        documents.check([str(tmp_path)])
    (tmp_path / "a.csv").write_text("x")
    fails(tmp_path / "a.csv", "suffix '.csv'; expected .txt")


def test_refuses_bad_records(packed):
    """Catches records skipped or read as something else without a word."""
    fails(packed("a.jsonl", b'{"text": 1}\n'), r":1: 'text' is 1; expected a string")
    fails(packed("b.jsonl", b'{"t": "a", "u": ""}\n'), r":1: no key 'text'; keys found: 't', 'u'")
    fails(packed("c.jsonl", b'["text"]\n'), ":1: found a list")
    good = b'{"text": "a"}\n'
    fails(packed("d.jsonl", good + b"\n{'text': 3}\n"), ":3: not JSON at column 2", False)
    fails(packed("e.jsonl", good + b'{"text": null}'), ":2: 'text' is null", False)


def test_refuses_bad_parquet(tmp_path):
    """Catches a wrong column, a null, and a file that is no Parquet file."""
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    fails(path, "not a readable Parquet file")
    fails(parquet(path, {"body": ["x"]}), "no column 'text'; columns found: 'body'")
    fails(parquet(path, {"text": [1]}), "is of type int64; expected string")
    fails(parquet(path, {"text": ["x", None]}), "row 1 .* has null", at_opening=False)
    fails(parquet(path, {"text": pa.array([], pa.string())}), "is empty")
