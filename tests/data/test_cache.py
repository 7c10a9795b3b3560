"""Shards of a folder on a bucket, fetched when their rows are near, in bounded room."""

import json
import shutil
import threading

import numpy as np
import pytest

from electra_jax import answers, remote
from electra_jax.data import cache, marks
from electra_jax.data.source import open_prepared
from electra_jax.data.windows import Windows
from electra_jax.spec import UserError

pytestmark = pytest.mark.slow  # the libraries of a cloud take seconds to import


@pytest.fixture(scope="module")
def many(folder, tmp_path_factory):
    """The prepared folder with its rows in many shards."""
    from electra_jax.data import record
    from electra_jax.data.prepare import shards

    found = open_prepared(folder)
    out = shutil.copytree(folder, tmp_path_factory.mktemp("many") / "data")
    info, dtype = found.info, np.dtype(found.info["dtype"])
    written = []
    for split, size in (("train", found.rows["train"] // 10), ("valid", 10**6)):
        source = found.source(split)
        rows = source.rows(np.arange(len(source)))
        stacked = np.stack([rows[name] for name in record.FIELDS], 1).astype(dtype)
        for old in out.glob(f"electra_rows-{split}.array_record*"):
            old.unlink()
        writer = shards.Shards(out, split, size)
        writer.write(record.encode(stacked))
        written += writer.finish()
    (out / "fingerprint.json").write_text(json.dumps({**info, "shards": written}))
    return out


def names(there, split="train"):
    return [s["name"] for s in there.shards(split)]


def test_rows_are_those_of_the_folder_in_little_room(either_bucket, many, monkeypatch):
    """Catches other rows than those of a whole copy, shards that stay when others need the room, and shards fetched
    that nobody reads."""
    remote.publish(many, f"{either_bucket}/data")
    here, there = open_prepared(many), open_prepared(f"{either_bucket}/data", whole=False)
    assert there.fingerprint == here.fingerprint and there.info == here.info
    assert not list(there.path.glob("electra_rows-*"))
    assert (there.path / "tokenizer").is_dir()
    shards = here.shards("train")
    limit = sum(sorted(s["bytes"] for s in shards)[-4:])
    monkeypatch.setenv(cache.LIMIT, str(limit))
    order = Windows(np.array([s["rows"] for s in shards]), 2, 0)
    mine, streamed = here.source("train"), there.source("train", 2)
    for step in range(2 * len(mine) // 32):
        numbers = order.rows(step, 32)
        found = streamed.rows(numbers)
        for name, rows in mine.rows(numbers).items():
            np.testing.assert_array_equal(rows, found[name])
        held = sum(path.stat().st_size for path in there.path.glob("electra_rows-*"))
        assert 0 < held <= limit
        assert len(streamed._readers) <= 2
    assert not list(there.path.glob("electra_rows-valid*"))


def test_nothing_goes_where_everything_fits(bucket, many, monkeypatch):
    """Catches shards fetched again in a second epoch, by a second process or by the next start."""
    remote.publish(many, f"{bucket}/data")
    fetch, fetched = remote.fetch, []
    monkeypatch.setattr(
        remote, "fetch", lambda url, *rest: fetched.append(url) or fetch(url, *rest)
    )
    for _ in range(2):
        there = open_prepared(f"{bucket}/data", whole=False)
        source = there.source("train", 1)
        for _ in range(2):
            source.rows(np.arange(len(source)))
    came = [url for url in fetched if "train.array_record" in url]
    assert len(came) == len(set(came)) == len(names(there))


def test_what_is_expected_is_there(bucket, many):
    """Catches a step that waits for shards though they were announced."""
    remote.publish(many, f"{bucket}/data")
    there = open_prepared(f"{bucket}/data", whole=False)
    there.source("train").expect(np.array([0, -1]))
    assert there.cache.get(names(there)[0]).exists()
    assert [p.name for p in there.path.glob("electra_rows-*")] == names(there)[:1]


def test_damaged_shards_are_never_read(bucket, many, tmp_path):
    """Catches rows of a shard changed on the bucket, or in the cache between two starts."""
    remote.publish(many, f"{bucket}/data")
    there = open_prepared(f"{bucket}/data", whole=False)
    one, other = names(there)[:2]
    path = there.cache.get(one)
    good = path.read_bytes()
    path.write_bytes(good[::-1])
    assert marks.read(path) is None
    again = open_prepared(f"{bucket}/data", whole=False)
    assert again.cache.get(one).read_bytes() == good
    remote.write(f"{bucket}/data/{other}", (many / other).read_bytes()[::-1])
    with pytest.raises(UserError, match=f"{other} has the sha256 .* damaged") as error:
        again.cache.get(other)
    assert "\n" not in str(error.value)
    assert not (again.path / other).exists()


def test_a_bucket_that_stalls_or_refuses_in_a_shard(bucket, many, monkeypatch):
    """Catches a fault that would pass and ends the run, a traceback, and half a shard under a shard's name."""
    remote.publish(many, f"{bucket}/data")
    monkeypatch.setattr(cache, "_PAUSES_S", (0.0, 0.0))
    there = open_prepared(f"{bucket}/data", whole=False)
    fetch, tries = remote.fetch, []

    def refuse(url, *rest):
        tries.append(url)
        if len(tries) <= refused:
            raise answers.BucketError(f"cannot read {url}: no answer within 120 s", True)
        fetch(url, *rest)

    monkeypatch.setattr(remote, "fetch", refuse)
    refused = 2
    assert there.cache.get(names(there)[0]).exists()
    refused, tries = 10, []
    with pytest.raises(answers.BucketError, match=names(there)[1]) as error:
        there.source("train").rows(np.arange(there.shards("train")[0]["rows"] + 1))
    assert error.value.status == answers.TRY_AGAIN and len(tries) in (
        3,
        6,
    )  # when it was expected, too
    assert len(list(there.path.glob("electra_rows-*"))) == 1


def test_too_little_room_is_said_first(bucket, many, monkeypatch):
    """Catches a cache smaller than what is read at once that fetches the same shards for ever."""
    remote.publish(many, f"{bucket}/data")
    there = open_prepared(f"{bucket}/data", whole=False)
    monkeypatch.setenv(cache.LIMIT, "1000000")
    with pytest.raises(UserError, match=r"need 2.00 GB of local disk at once.*may hold 0.00 GB"):
        there.cache.check_room(2 * 10**9, "two windows of 8 shards")
    monkeypatch.setenv(cache.LIMIT, "2 GB")
    with pytest.raises(UserError, match="no number of bytes"):
        there.cache.check_room(1, "it")


def test_a_full_disk_is_one_line(bucket, many, monkeypatch):
    """Catches a traceback, or half a shard, where the disk is full before the limit is reached."""
    remote.publish(many, f"{bucket}/data")
    there = open_prepared(f"{bucket}/data", whole=False)

    def full(url, target, *rest):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(remote, "fetch", full)
    with pytest.raises(UserError, match="disk is full|No space|full"):
        there.cache.get(names(there)[0])


def test_processes_fetch_a_shard_once(bucket, many, monkeypatch):
    """Catches eight processes of a machine that fetch the same shard eight times."""
    remote.publish(many, f"{bucket}/data")
    fetch, fetched = remote.fetch, []
    monkeypatch.setattr(
        remote, "fetch", lambda url, *rest: fetched.append(url) or fetch(url, *rest)
    )
    folders = [open_prepared(f"{bucket}/data", whole=False) for _ in range(3)]
    fetched.clear()
    threads = [threading.Thread(target=f.cache.get, args=(names(f)[0],)) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
