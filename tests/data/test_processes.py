"""`prepare` by a team of processes: the same bytes for any number, nothing large through the parent, errors said."""

import gzip
import json
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from electra_jax.data import examples, record
from electra_jax.data.prepare import build, deal, processes, shards, work
from electra_jax.data.prepare import corpus as corpora
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.data.prepare.team import Team, apart
from electra_jax.spec import UserError
from electra_jax.text import tokenizer


@pytest.fixture
def inputs(tmp_path, corpus) -> list[str]:
    """An input of every kind: text, gzip, JSON lines, Parquet, WikiExtractor, a long book, empty and tiny parts."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "inputs"
    folder.mkdir()
    texts = Path(corpus[1]).read_text().split("\n\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress(Path(corpus[1]).read_bytes(), mtime=0))
    lines = [json.dumps({"text": text or None}) for text in texts]
    (folder / "c.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.table({"text": texts}), folder / "d.parquet", row_group_size=40)
    articles = [
        f'<doc id="{i}" url="u" title="t">\nt\n\n{text}\n</doc>' for i, text in enumerate(texts)
    ]
    (folder / "e").write_text("\n".join(articles))
    (folder / "f.txt").write_text("the of and to in is was he for with his\n" * 2000)
    for number in range(9):
        (folder / f"part-{number}.txt").write_text(
            "" if number % 4 == 1 else f"he was {number}\n\n"
        )
    return [corpus[0], *sorted(str(path) for path in folder.iterdir())]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "options"),
    [([2, 3, 7], {}), ([2], {"dedup": "exact"}), ([3], {"dedup": "near", "pack": True})],
)
def test_any_number_of_workers_gives_the_same_bytes(
    inputs, others, options, vocab, tmp_path, monkeypatch
):
    """Catches rows in the order in which workers end, shards cut elsewhere, counts and copies lost or doubled."""
    monkeypatch.setattr(corpora, "_BLOCK", 4000)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 100_000)
    found = {}
    for workers in (1, *others):
        out = tmp_path / f"rows{workers}"
        valid = [inputs[0]] if "dedup" in options else None
        chosen = inputs[1:] if valid else inputs
        build.prepare(
            chosen,
            vocab,
            32,
            out,
            workers=workers,
            valid_inputs=valid,
            valid_fraction=0.1,
            **options,
        )
        found[workers] = contents(out)
    assert sum("array_record" in name for name in found[1]) > 5
    assert all(found[workers] == found[1] for workers in found)


def test_little_passes_through_the_parent(corpus, vocab, tmp_path, monkeypatch):
    """Catches texts, rows or whole tables of counts that go through the pipes of the parent."""
    passed = 0
    call, reply = Team.call, Team._reply

    def counted_call(self, member, method, *arguments):
        nonlocal passed
        passed += len(pickle.dumps((method, arguments)))
        call(self, member, method, *arguments)

    def counted_reply(self, member):
        nonlocal passed
        result = reply(self, member)
        passed += len(pickle.dumps(result))
        return result

    monkeypatch.setattr(Team, "call", counted_call)
    monkeypatch.setattr(Team, "_reply", counted_reply)
    text = tmp_path / "a.txt"
    text.write_text(Path(corpus[0]).read_text() * 40)
    mib = text.stat().st_size / 2**20
    assert mib > 1.5
    build.prepare([str(text)], vocab, 32, tmp_path / "rows", workers=2)
    assert passed / mib < 8192  # a hundredth of the text


class Recorded:
    """A member that answers at once what one answered that did the work: for a MiB of text 2,000 rows."""

    ROWS = 2000

    def __init__(self, pieces: int, rows_per_shard: int) -> None:
        self._pieces, self._read = pieces, 0

    def read(self, run: int, of: range, most: int, dropped: object = None) -> deal.Read:
        made = min(most, self._pieces - self._read)
        self._read += made
        return deal.Read(made, made * 2**20, self._read == self._pieces)

    def make(self, run: int, piece: int) -> deal.Done:
        return deal.Done((self.ROWS - 20, 20), self.ROWS * 1024)

    def write(self, shard: str, parts: list[processes.Rows], last: bool) -> dict | None:
        return {"name": shard, "rows": 0, "bytes": 0, "sha256": ""} if last else None


def cost(workers: int, pieces: int, folder: Path) -> float:
    """Processor seconds of this process for a MiB of text that `workers` recorded members work on."""
    begin = resource.getrusage(resource.RUSAGE_SELF)
    placing = processes._Placing(folder, 250_000, 1024)
    placing._remove = lambda piece: placing._left.pop(piece)  # no member writes files here
    with Team(workers, Recorded, (pieces, 250_000)) as team:
        dealer = placing.dealer = deal.Dealer(team, [range(1)], 2**31, int)
        for run, piece, rows in dealer.results():
            placing.place((run, piece), rows)
        placing.close()
        dealer.finish()
    assert len(placing.written) == pieces * Recorded.ROWS // 250_000 + 2
    end = resource.getrusage(resource.RUSAGE_SELF)
    return (end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime) / pieces


@pytest.mark.slow
def test_sixteen_workers_are_dealt_to(tmp_path):
    """Catches a parent whose own work for a MiB keeps sixteen processes waiting: 32 MiB/s once, 640 at least now."""
    few, many = (cost(16, pieces, tmp_path) * pieces for pieces in (100, 1100))
    assert 1000 / (many - few) > 640


class Deadly:
    """A member that ends as the kernel ends a process for its memory."""

    def die(self) -> None:
        os._exit(9)


class Unsendable(Exception):
    """Cannot be made again from what it is pickled as."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def cannot_be_sent() -> None:
    raise Unsendable("one", "other")


def fails(error: Exception) -> None:
    raise error


def test_a_worker_that_dies_is_one_error():
    """Catches a parent that waits for ever for a process that the kernel has killed."""
    with pytest.raises(UserError, match="lack of memory"), Team(2, Deadly) as team:
        team.call(1, "die")
        team.replies()
    with pytest.raises(UserError, match="lack of memory"):
        apart(os._exit, 9)


@pytest.mark.slow
def test_an_error_of_a_worker_arrives_as_itself():
    """Catches a worker's reason lost on its way, and one that cannot be sent at all."""
    with pytest.raises(UserError, match="^the reason$"):
        apart(fails, UserError("the reason"))
    with pytest.raises(ValueError, match="of a library") as raised:
        apart(fails, ValueError("of a library"))
    assert "in fails" in raised.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Unsendable: one other"):
        apart(cannot_be_sent)


def test_what_is_wrong_in_a_worker_leaves_nothing(vocab, tmp_path):
    """Catches half a folder, or files in passing, after a fault that only who reads far enough meets."""
    text = tmp_path / "a.txt"
    text.write_bytes(b"good text\n\n" * 150_000 + b"\xff bad\n")
    with pytest.raises(UserError, match="byte 1650000"):
        build.prepare([str(text)], vocab, 32, tmp_path / "rows", workers=2)
    assert sorted(tmp_path.iterdir()) == [text]


def test_a_disk_that_refuses_a_worker_is_one_error(vocab, tmp_path):
    """Catches a full disk that ends in a worker's traceback or leaves what passes between workers; a limit on
    the size of files stands in for it."""
    text = tmp_path / "a.txt"
    text.write_text("the of and to in is was he for with his\n\n" * 20_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write"):
            build.prepare([str(text)], vocab, 32, tmp_path / "rows", workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == [text]


class Here:
    """A team without processes, whose members answer in an order that a seed draws."""

    def __init__(self, members: list, seed: int) -> None:
        self.size, self._members = len(members), members
        self._draw = np.random.default_rng(seed)
        self._waiting: dict[int, tuple] = {}

    def call(self, member: int, method: str, *arguments) -> None:
        assert member not in self._waiting
        self._waiting[member] = method, arguments

    def replies(self) -> list:
        member = int(self._draw.choice(sorted(self._waiting)))
        method, arguments = self._waiting.pop(member)
        return [(member, getattr(self._members[member], method)(*arguments))]


@pytest.mark.parametrize("seed", range(6))
def test_dealing_keeps_order_and_bounds(seed, inputs, vocab, tmp_path, monkeypatch):
    """Catches results out of turn, a standstill when little may wait, and rows that wait without limit."""
    monkeypatch.setattr(corpora, "_BLOCK", 3000)
    corpus = Corpus(paths=inputs)
    job = work.Job(tokenizer.load(vocab), examples.Plan(32), 0, None)
    spool = tmp_path / "spool"
    spool.mkdir()
    members = [processes.Builder(corpus, job, tmp_path, spool) for _ in range(1 + seed % 5)]
    row_bytes = record.size(32, np.dtype("<u2"))
    placing = processes._Placing(spool, 500, row_bytes)
    most = 300 * row_bytes * (1 + seed % 3)
    dealer = placing.dealer = deal.Dealer(
        Here(members, seed), corpus.runs(), most, int, room=lambda: placing.waiting < most
    )
    places, sizes, held = [], [], []
    for run, piece, rows in dealer.results():
        places.append((run, piece))
        sizes.append(sum(rows) * row_bytes)
        placing.place((run, piece), rows)
        assert len(list(spool.glob("text-*"))) <= 2 * len(members) + 4
        held.append(placing.waiting + dealer._ahead)
    placing.close()
    dealer.finish()
    assert places == sorted(places) and len({run for run, _ in places}) > 3
    assert max(held) <= 2 * most + (len(members) + 1) * max(sizes)
    assert not list(spool.iterdir()) and not placing.waiting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "rows_per_shard", lambda *_: 500)
        build.prepare(inputs, vocab, 32, tmp_path / "one", workers=1, valid_fraction=0)
    ours = placing.named(tmp_path)
    theirs = json.loads((tmp_path / "one" / "fingerprint.json").read_text())["shards"]
    assert ours == theirs
