"""The owner object of a bucket: one at a time, taken over after its expiry, lost when another takes it."""

import json
import secrets
import threading
import time

import fsspec
import pytest

from electra_jax.spec import UserError
from electra_jax.workdir.owner import NAME, owned

QUICK = {"heartbeat_s": 0.05, "expiry_s": 0.5, "settle_s": 0.01}


@pytest.fixture
def url() -> str:
    return f"memory://{secrets.token_hex(4)}/run"


def content(url: str) -> dict | None:
    bucket, folder = fsspec.core.url_to_fs(url)
    path = f"{folder}/{NAME}"
    return json.loads(bucket.cat_file(path)) if bucket.exists(path) else None


def test_the_second_is_refused_while_the_first_lives(url):
    """Catches two runs that write one workdir on a bucket, and an object that outlives its owner."""
    with owned(url, **QUICK) as first:
        with pytest.raises(UserError, match=r"in use by process \d+ on "), owned(url, **QUICK):
            pass
        first.check()
    assert content(url) is None
    with owned(url, **QUICK):
        pass


def test_a_dead_owner_is_outlived(url, monkeypatch):
    """Catches a workdir locked for ever after kill -9, one taken over from a living owner, and an expiry
    that trusts wall clocks: the machine's clock jumps a year while the second one watches."""
    bucket, folder = fsspec.core.url_to_fs(url)
    dead = {"who": "process 1 on elsewhere", "token": "x", "beat": 7}
    bucket.pipe_file(f"{folder}/{NAME}", json.dumps(dead).encode())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    start = time.monotonic()
    with owned(url, **QUICK):
        assert time.monotonic() - start >= QUICK["expiry_s"]
        assert content(url)["token"] != "x"


def test_an_owner_that_was_taken_over_notices(url):
    """Catches a run that slept through its expiry and goes on writing beside its successor."""
    with owned(url, **QUICK) as first:
        bucket, folder = fsspec.core.url_to_fs(url)
        other = {"who": "process 2 on elsewhere", "token": "y", "beat": 1}
        bucket.pipe_file(f"{folder}/{NAME}", json.dumps(other).encode())
        _until(lambda: not _holds(first))
        with pytest.raises(UserError, match="process 2 on elsewhere has taken it"):
            first.check()
    assert content(url)["token"] == "y"  # not ours to remove


def test_a_bucket_out_of_reach(url, monkeypatch):
    """Catches a heartbeat that fails without a word: after the expiry somebody else may own the workdir."""
    with owned(url, **QUICK) as first:

        def refuse(*arguments, **options):
            raise OSError("no route")

        with monkeypatch.context() as patch:
            patch.setattr(type(first._bucket), "pipe_file", refuse)
            _until(lambda: not _holds(first))
            with pytest.raises(UserError, match="could not be written for"):
                first.check()


def test_two_at_once(url):
    """Catches a race in which both think that they have won."""
    held, refused = [], []

    def start() -> None:
        try:
            with owned(url, **QUICK | {"settle_s": 0.2}):
                held.append(1)
                time.sleep(0.3)
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1)


def test_two_at_once_where_an_object_is_made_on_a_condition(either_bucket):
    """Catches a claim that both have for a moment: of two at once the bucket itself chooses one, without a wait."""
    held, refused = [], []
    begin, done = threading.Barrier(2), threading.Event()

    def start() -> None:
        begin.wait()
        try:
            with owned(f"{either_bucket}/run", 0.2, 60, settle_s=1000):
                held.append(1)
                done.wait(60)
        except UserError as error:
            refused.append(str(error))
            done.set()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 1) and "in use by" in refused[0]


@pytest.mark.parametrize("answer", ["ignores", "refuses"])
def test_a_server_without_conditions(url, monkeypatch, answer):
    """Catches two owners, or none, where the server does not know the condition, or its library the mode."""
    kind = type(fsspec.core.url_to_fs(url)[0])
    write = kind.pipe_file

    def without(self, path, value, mode="overwrite", **options):
        if mode == "create" and answer == "refuses":
            raise NotImplementedError(
                "A header you provided implies functionality that is not there"
            )
        write(self, path, value, **options)

    monkeypatch.setattr(kind, "pipe_file", without)
    test_two_at_once(url)
    assert content(url) is None


def _holds(owner) -> bool:
    try:
        owner.check()
    except UserError:
        return False
    return True


def _until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
