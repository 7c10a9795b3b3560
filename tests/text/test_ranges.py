"""Files read in ranges: together the documents of the file, wherever the borders fall."""

import bz2
import gzip
import json
import random
import zlib
from pathlib import Path

import pytest

from electra_jax.spec import UserError
from electra_jax.text.sources import compression, documents, ranges

pytestmark = pytest.mark.usefixtures("_blocks")


@pytest.fixture
def _blocks(monkeypatch):
    """Borders of blocks in the middle of everything."""
    monkeypatch.setattr(compression, "BLOCK", 64)


def cut_and_read(path: Path, longest: int, join_lines: bool = False) -> int:
    """Reads a file in ranges and as a whole, compares, and returns how many ranges there were."""
    parts = ranges.cut(str(path), path.stat().st_size, "text", join_lines, longest)
    skipped, skipped_whole = documents.Skipped(), documents.Skipped()
    whole = list(documents.read(str(path), join_lines=join_lines, skipped=skipped_whole))
    found = [d for part in parts for d in ranges.read(str(path), "text", part, join_lines, skipped)]
    assert found == whole
    assert skipped == skipped_whole
    return len(parts)


def text(draw: random.Random) -> bytes:
    """Lines, blank lines of several kinds, documents longer than a range."""
    pieces = ["a", "b c", "\n", "\n", "\n\n", " \n", "\u3000\n", "é\r\n", "\ufeff", "x" * 50]
    return ("a\n" + "".join(draw.choice(pieces) for _ in range(draw.randrange(1, 60)))).encode()


def bgzip(content: bytes) -> bytes:
    """A member of gzip as bgzip writes it, with its length in its header."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + (len(packed) + 25).to_bytes(
        2, "little"
    )
    return (
        head
        + packed
        + zlib.crc32(content).to_bytes(4, "little")
        + len(content).to_bytes(4, "little")
    )


@pytest.mark.parametrize("seed", range(20))
def test_borders_anywhere(seed, tmp_path):
    """Catches a document lost, doubled or cut where a range, a block or a compressed stream ends."""
    draw = random.Random(seed)
    content = text(draw)
    (tmp_path / "a.txt").write_bytes(content)
    for longest in (1, 2, 7, 30):
        assert cut_and_read(tmp_path / "a.txt", longest) > 1 or len(content) <= longest
    places = sorted(draw.randrange(len(content) + 1) for _ in range(3))
    streams = [content[a:b] for a, b in zip([0, *places], [*places, None], strict=True)]
    (tmp_path / "a.txt.bz2").write_bytes(b"".join(map(bz2.compress, streams)))
    (tmp_path / "a.txt.gz").write_bytes(b"".join(map(bgzip, [*streams, b""])))
    for longest in (20, 90):
        assert cut_and_read(tmp_path / "a.txt.bz2", longest) > 1
        assert cut_and_read(tmp_path / "a.txt.gz", longest) > 1
    values = [None, "a\nb", "c", "", "d\n\ne", "é" * 30]
    lines = [
        json.dumps({"text": draw.choice(values)}) + draw.choice(["\n", "\n\n"]) for _ in range(20)
    ]
    (tmp_path / "a.jsonl").write_text("".join(lines) + '{"text": "z"}')
    for longest in (1, 33):
        cut_and_read(tmp_path / "a.jsonl", longest)
        cut_and_read(tmp_path / "a.jsonl", longest, join_lines=True)


def test_row_groups(tmp_path):
    """Catches row groups read by two ranges or by none."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {"n": list(range(50)), "text": [f"a {n}\nb" if n % 7 else None for n in range(50)]}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=6)
    for longest in (1 + (tmp_path / "a.parquet").stat().st_size // count for count in (2, 5, 40)):
        assert cut_and_read(tmp_path / "a.parquet", longest) > 1


@pytest.mark.parametrize(
    ("name", "content", "join_lines"),
    [
        ("a.txt.gz", gzip.compress(b"a\n\nb\n" * 50), False),
        ("a.txt.bz2", bz2.compress(random.Random(0).randbytes(500).hex().encode()), False),
        ("a.txt", b"a\n\n\nb\n" * 50, True),
        ("wiki", b'<doc id="1" url="u" title="t">\nt\n\na\n</doc>\n' * 20, False),
    ],
)
def test_what_is_read_whole(name, content, join_lines, tmp_path):
    """Catches a cut through what can only be read from its start."""
    (tmp_path / name).write_bytes(content)
    assert cut_and_read(tmp_path / name, 20, join_lines) == 1


def test_a_fault_is_told_by_its_place_in_the_file(tmp_path):
    """Catches bytes and lines counted from the start of a range."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\n\n" * 20 + b"\xff\n")
    last = ranges.cut(str(path), 102, "text", False, 30)[-1]
    with pytest.raises(UserError, match=r"byte 100 \(0xff, line 41\)"):
        list(ranges.read(str(path), "text", last))
