"""A preparation as rounds of tasks: the rows of one machine, whatever order tasks run in and how often."""

import bz2
import functools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from electra_jax import remote
from electra_jax.data import record
from electra_jax.data.prepare import build
from electra_jax.data.prepare import corpus as corpora
from electra_jax.data.prepare.engine import copies, plan, rounds, store
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.spec import UserError


def perform(label: str, root: str, tasks: Sequence[plan.Task]) -> None:
    """An engine that runs tasks in any order, and each once more as if its outcome had been lost."""
    random.Random(label).shuffle(todo := list(tasks))
    for task in todo:
        plan.perform(root, task)
        before = store.Store(root).read(task.name)
        store.Store(root).write(
            task.name, json.dumps(task.run(plan._load(root), store.Store(root))).encode()
        )
        assert store.Store(root).read(task.name) == before


def engine(order: build.Order, folder: Path, root: str = "", how=perform) -> build.Done:
    """What `build.prepare` takes."""
    place = folder / "parts"
    place.mkdir()
    done = rounds.run(how, order, root or str(place), folder)
    for path in place.rglob("*"):
        path.unlink()
    place.rmdir()
    return done


def rows(data: Prepared, split: str) -> np.ndarray:
    """All rows of a split, in their order."""
    source = data.source(split)
    found = source.rows(np.arange(len(source)))
    return np.stack([found[name] for name in record.FIELDS], axis=1)


def assert_same(here: Path, there: Path) -> None:
    """The same rows in the same order, and the same said of them; shards may end elsewhere."""
    one, other = open_prepared(here), open_prepared(there)
    for split in ("train", "valid"):
        assert np.array_equal(rows(one, split), rows(other, split))
    same = set(one.info) - {"shards"}
    assert {key: one.info[key] for key in same} == {key: other.info[key] for key in same}


@pytest.fixture
def small(monkeypatch):
    """Blocks, ranges, portions and shards as small as leaves many of each."""
    monkeypatch.setattr(corpora, "_BLOCK", 2000)
    monkeypatch.setattr(plan, "_LEAST", 15_000)
    monkeypatch.setattr(plan, "_BYTES_A_PLACE", 60_000)
    monkeypatch.setattr(build.shards, "_SHARD_BYTES", 20_000)


@pytest.fixture
def mixed(corpus, tmp_path) -> list[str]:
    """Files of several kinds, with copies, near copies, a long document, a record without text."""
    (tmp_path / "book.txt").write_text("the of and to in is was he for with his\n" * 2000)
    text = Path(corpus[0]).read_text()
    documents = [d.replace("\n", " ").split() for d in text.split("\n\n")][40:60]
    near = "\n\n".join(" ".join([*words, "be"]) for words in documents if len(words) > 60)
    (tmp_path / "near.txt").write_text(near + "\n")
    (tmp_path / "c.txt.bz2").write_bytes(
        bz2.compress(text[:9000].encode()) + bz2.compress(text[9000:].encode())
    )
    (tmp_path / "part-1.jsonl").write_text('{"text": null}\n')
    records = [{"text": d} for d in Path(corpus[1]).read_text().split("\n\n")[:80]]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"text": null}\n')
    return [*corpus, *(str(path) for path in sorted(tmp_path.iterdir()))]


@pytest.mark.parametrize(
    "options",
    [
        {"dedup": "exact", "valid_fraction": 0.2},
        {"dedup": "near", "valid_fraction": 0.1},
        {"pack": True},
        {"valid_fraction": 0.0, "join_lines": True},
    ],
    ids=str,
)
def test_the_rows_of_one_machine(options, mixed, vocab, tmp_path, small):
    """Catches rows lost, doubled, made otherwise or out of order, held-out text in training, copies kept."""
    if options.get("dedup") == "near":
        mixed = [mixed[0], mixed[-2]]  # signing takes most of the time
    build.prepare(mixed, vocab, 32, tmp_path / "here", **options, workers=1)
    build.prepare(mixed, vocab, 32, tmp_path / "there", **options, engine=engine)
    assert_same(tmp_path / "here", tmp_path / "there")
    info = open_prepared(tmp_path / "there").info
    assert len(info["shards"]) > 3 or options.get("join_lines")
    if "dedup" in options:
        assert info["counts"]["train"]["duplicates"] >= 3
    assert not (tmp_path / "there" / "parts").exists()


def test_held_out_inputs(corpus, vocab, tmp_path, small):
    """Catches an engine that holds out text by itself where files are named for that, or trains on them."""
    options = {"valid_inputs": corpus[1:], "dedup": "exact"}
    build.prepare(corpus[:1], vocab, 32, tmp_path / "here", **options, workers=1)
    build.prepare(corpus[:1], vocab, 32, tmp_path / "there", **options, engine=engine)
    assert_same(tmp_path / "here", tmp_path / "there")


@pytest.mark.parametrize("place", ["bucket", "s3_bucket"])
def test_buckets(place, corpus, vocab, tmp_path, request, monkeypatch):
    """Catches workers that need a local copy of the input, or a disk of their own to meet on."""
    monkeypatch.setattr(plan, "_LEAST", 40_000)
    bucket = request.getfixturevalue(place)
    for path in corpus:
        remote.send(Path(path), f"{bucket}/raw/{Path(path).name}")
    build.prepare(corpus, vocab, 32, tmp_path / "here", dedup="exact", workers=1)
    there = functools.partial(engine, root=f"{bucket}/parts")
    build.prepare(
        [f"{bucket}/raw/*.txt"], vocab, 32, tmp_path / "there", dedup="exact", engine=there
    )
    assert_same(tmp_path / "here", tmp_path / "there")
    with pytest.raises(UserError, match=r"/raw/\*.json' matches no file on the bucket"):
        build.prepare([f"{bucket}/raw/*.json"], vocab, 32, tmp_path / "out", engine=there)


def test_a_task_that_left_nothing(corpus, vocab, tmp_path, small):
    """Catches an engine that says DONE and has lost a part of the work."""

    def forgetful(label: str, root: str, tasks: Sequence[plan.Task]) -> None:
        for task in tasks[: -1 if label == "rows" else None]:
            plan.perform(root, task)

    with pytest.raises(
        UserError, match="round 'rows' 1 have left nothing in .*do all workers mount"
    ):
        build.prepare(
            corpus, vocab, 32, tmp_path / "out", engine=functools.partial(engine, how=forgetful)
        )
    assert not list(tmp_path.iterdir())


def test_an_input_that_changes_between_rounds(corpus, vocab, tmp_path, small):
    """Catches rows numbered by one content of a file and made of another."""
    (tmp_path / "a.txt").write_text(Path(corpus[0]).read_text())

    def meddling(label: str, root: str, tasks: Sequence[plan.Task]) -> None:
        if label == "rows":
            (tmp_path / "a.txt").write_text(Path(corpus[0]).read_text().replace("\n\n", "\n", 3))
        perform(label, root, tasks)

    how = functools.partial(engine, how=meddling)
    with pytest.raises(
        UserError, match=r"a\.txt was replaced or written to while it was read: it had"
    ):
        build.prepare([str(tmp_path / "a.txt")], vocab, 32, tmp_path / "out", engine=how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n' * 900 + '{"text": 4}\n', r"a\.jsonl:901: 'text' is 4"),
        ("\n" * 10_000, "is empty: it holds no text"),
    ],
)
def test_faults_of_ranges_name_the_line(content, message, vocab, tmp_path, small):
    """Catches line numbers counted from the start of a range, and an empty file that is nobody's to see."""
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        build.prepare([str(tmp_path / "a.jsonl")], vocab, 32, tmp_path / "out", engine=engine)


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_linked_documents(seed):
    """Catches documents of one group that are not looked at together, and so copies kept."""
    draw = np.random.default_rng(seed)
    count = 60
    ones, others = draw.integers(0, count, (2, 40))
    expected = list(range(count))
    for _ in range(count):
        for a, b in zip(ones, others, strict=True):
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert copies.connected(count, ones, others).tolist() == expected
