"""Corpora of every format come out as the same documents, and what is not text is refused."""

import bz2
import gzip
import itertools
import json
import lzma
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from electra_jax.spec import UserError
from electra_jax.text.sources import documents

DOCUMENTS = [["Erster Absatz.", "Zweiter, größer."], ["中文一段。"], ["한국어", "😀 x"]]
TEXT = "\n\n\n".join("\n".join(document) for document in DOCUMENTS) + "\n"
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
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
    monkeypatch.setattr("electra_jax.text.sources.compression.BLOCK", 16)
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
    monkeypatch.setattr("electra_jax.text.sources.compression.BLOCK", 64)
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


def test_a_stream_is_followed_by_another(tmp_path):
    """Catches the rest of a file lost without a word where one bit of a later stream's header is wrong."""
    for suffix, pack in list(PACK.items())[1:]:
        path = tmp_path / f"a.txt{suffix}"
        first, second = pack(b"one\n\n"), pack(b"two\n\n")
        path.write_bytes(first + second)
        assert read(path) == [["one"], ["two"]]
        for byte in range(3):  # those by which a stream is known
            flipped = bytearray(second)
            flipped[byte] ^= 4
            path.write_bytes(first + bytes(flipped))
            fails(path, f"is damaged: its {suffix} data cannot be read after [05] bytes", False)
        if suffix != ".zst":
            path.write_bytes(
                first + bytes(512) + second + bytes(4)
            )  # padding, as tapes and xz have
            assert read(path) == [["one"], ["two"]]


def test_windows_of_any_size(tmp_path):
    """Catches what `zstd --long=28` and more wrote refused, for a limit meant for browsers."""
    settings = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    path = tmp_path / "a.txt.zst"
    path.write_bytes(packer.compress(TEXT.encode()) + packer.flush())
    assert read(path) == DOCUMENTS


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


def test_refuses_bad_parquet(tmp_path):
    """Catches a wrong column, a null, and a file that is no Parquet file."""
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    fails(path, "not a readable Parquet file")
    fails(parquet(path, {"body": ["x"]}), "no column 'text'; columns found: 'body'")
    fails(parquet(path, {"text": [1]}), "is of type int64; expected string")
    fails(parquet(path, {"text": pa.array([], pa.string())}), "is empty")
    fails(parquet(path, {"text": pa.array([b"a", b"\xff"])}), "row 1 .*not UTF-8", False)


ARTICLES = [["Anarchism", "A <b> & c.", "History."], ['The "Doors"', "A band."]]


def extracted() -> str:
    """Articles as WikiExtractor writes them, one of them without text."""
    found = []
    for number, (title, *body) in enumerate([*ARTICLES, ["Redirect"]]):
        text = "\n".join(body).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        url = f"https://en.wikipedia.org/wiki?curid={number}"
        opening = f'<doc id="{number}" url="{url}" title="{title}">'
        found.append(f"{opening}\n{title}\n\n{text}\n\n</doc>\n")
    return "".join(found)


def test_articles_of_wikiextractor(packed):
    """Catches markup trained on, an article cut into pieces, a title that is doubled or lost."""
    skipped = documents.Skipped()
    assert read(packed("wiki_00", extracted().encode()), skipped=skipped) == ARTICLES
    assert skipped == {"empty_articles": 1}
    bare = '<doc id="1" url="u">\nA\n\nb\n</doc>\n'
    assert read(packed("c.txt", bare.encode())) == [["A", "b"]]
    assert read(packed("d.txt", f"see\n{bare}".encode())) == [
        ["see", bare[:20], "A"],
        ["b", "</doc>"],
    ]


def test_articles_keep_their_paragraphs(packed):
    """Catches an article made one paragraph by --join-lines, which is for wrapped text beside it."""
    record = {"id": "1", "revid": "2", "url": "u", "title": "A", "text": "b.\nc."}
    assert read(packed("wiki_00", extracted().encode()), join_lines=True) == ARTICLES
    found = read(packed("wiki_01", json.dumps(record).encode()), join_lines=True)
    assert found == [["A", "b.", "c."]]


def test_damaged_articles_are_refused(packed):
    """Catches an article lost at the end of a file, and text between articles taken for one."""
    text = extracted()
    fails(
        packed("wiki_00", text[:-7].encode()), r"wiki_00[.\w]*:14: the article .* no </doc>", False
    )
    fails(packed("wiki_01", (text + "stray\n").encode()), r":20: found text outside", False)


@pytest.mark.parametrize("name", ["wiki_00", "a.jsonl", "a.json", "a.txt"])
def test_json_records_are_known_by_content(packed, name):
    """Catches WikiExtractor's --json files trained on as text, their titles lost or doubled."""
    records = [
        {"id": "1", "revid": "2", "url": "u", "title": t, "text": "\n".join(body)}
        for t, *body in ARTICLES
    ]
    records[0]["text"] = "A &lt;b&gt; &amp; c.\nHistory."
    records[1]["text"] = f"{records[1]['title']}\n\n{records[1]['text']}"
    records.append(records[1] | {"text": ""})
    path = packed(name, "\n".join(map(json.dumps, records)).encode())
    documents.check([str(path)])
    assert read(path) == ARTICLES
    with pytest.raises(UserError, match="no key 'body'"):
        documents.check([str(path)], "body")
    other = [{"id": 1, "title": "T", "text": "only"}, {"text": None}]
    skipped = documents.Skipped()
    path = packed(name, "\n".join(map(json.dumps, other)).encode())
    assert read(path, skipped=skipped) == [["only"]]
    assert skipped == {"null_texts": 1}


def test_prose_is_not_taken_for_json(packed):
    """Catches text that begins with a brace, or quotes an object, read as records."""
    text = '{"text": "quoted"}\n{braces} are text, too.\n'
    assert read(packed("a.txt", text.encode())) == [text.splitlines()]
    fails(packed("a.json", b'[{"text": "x"}]'), "JSON array; .* jq -c")
    fails(packed("b.json", b'{"text":\n"x"}'), ":1: not JSON")


def test_strange_values_are_read_or_refused_in_a_line(packed):
    """Catches tracebacks of Python's limits on nesting and on digits."""
    long = b'{"text": "a", "n": %s}\n' % (b"1" * 10_000)
    assert read(packed("a.jsonl", long)) == [["a"]]
    deep = b'{"text": "a", "n": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    fails(packed("b.jsonl", deep), ":1: its values are nested too deeply")
    assert read(packed("c", deep)) == [[deep.decode().strip()]]  # its name does not say JSON


@pytest.mark.parametrize(
    "kind", ["string_view", "large_string", "binary", "large_binary", "binary_view"]
)
def test_parquet_columns_of_text(tmp_path, kind):
    """Catches texts refused for how they are stored, and nulls that end the work or vanish uncounted."""
    column = pa.array(["größer", None, "x\ny"], pa.string()).cast(pa.binary())
    path = parquet(tmp_path / "a.parquet", {"text": column.cast(getattr(pa, kind)())})
    skipped = documents.Skipped()
    assert read(path, skipped=skipped) == [["größer"], ["x", "y"]]
    assert skipped == {"null_texts": 1}


def test_output_of_spark(tmp_path, capsys):
    """Catches a run refused for empty parts and marker files, and such files taken for text."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("_SUCCESS", ".part-00000.crc", "part-00001", "part-00002.txt.gz"):
        (folder / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(UserError, match="part-00001 is empty"):
        documents.check(documents.expand([str(folder)]))
    (folder / "part-00000").write_text("one\n\ntwo\n")
    capsys.readouterr()
    for pattern in (str(folder), f"{folder}/*", f"{folder}/part-*"):
        paths = documents.expand([pattern])
        assert [Path(path).name for path in paths] == [
            "part-00000",
            "part-00001",
            "part-00002.txt.gz",
        ]
        documents.check(paths)
        said = capsys.readouterr().err
        assert "2 of 3 input files are empty parts" in said
        assert ("_SUCCESS" in said) == ("part-" not in pattern)
    assert [read(Path(path)) for path in paths] == [[["one"], ["two"]], [], []]
