"""Buckets: what is one, what is said when it does not answer, copies there and back."""

import errno
import io
import sys
import threading
from pathlib import Path

import pytest

from electra_jax import answers, remote, schemes
from electra_jax.spec import UserError


class Refusal(OSError):
    """Stands for gcsfs.retry.HttpError."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused, {code}")
        self.code = code


class Stub:
    """A bucket of which every question ends in one way."""

    def __init__(self, answer) -> None:
        self._answer = answer

    def __getattr__(self, name):
        return self._answer


def raises(error):
    """A function that does."""

    def answer(*_, **__):
        raise error

    return answer


def test_what_is_remote(tmp_path):
    """Catches a local path taken for a bucket, a data set's name too, and a bucket nobody can read."""
    assert remote.is_remote("gs://b/run")
    assert remote.is_remote("s3://b/run")
    assert not any(map(remote.is_remote, ("run", "/a/b", tmp_path, "tfds:wiki", "a/b://c")))
    for scheme in ("hdfs", "file", "https", "az", "S3"):
        with pytest.raises(UserError, match=f"{scheme}://b/run: only gs://.*s3://"):
            remote.is_remote(f"{scheme}://b/run")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (raises(Refusal(401)), "no credentials.*application-default login"),
        (raises(OSError("Forbidden: https://b\nnot yours")), "permission denied.*Storage Object"),
        (raises(Refusal(403)), "permission denied"),
        (raises(FileNotFoundError("b/o/gs")), "no such bucket"),
        (raises(Refusal(500)), "cannot list gs://b/run: refused, 500"),
    ],
)
def test_a_bucket_that_refuses(monkeypatch, answer, message):
    """Catches a traceback of the library instead of what to do."""
    monkeypatch.setattr(remote, "_file_system", lambda url: Stub(answer))
    with pytest.raises(UserError, match=message):
        remote.check_access("gs://b/run")


def test_no_credentials_at_all(monkeypatch):
    """Catches an error of the login library that reaches the user as a traceback."""
    from google.auth.exceptions import DefaultCredentialsError

    monkeypatch.setattr(remote, "_file_system", raises(DefaultCredentialsError("none found")))
    with pytest.raises(UserError, match=r"no credentials, .*\(none found\)"):
        remote.check_access("gs://b/run")


def test_a_bucket_that_does_not_answer(monkeypatch):
    """Catches a wait without end where there is no network or no login."""
    monkeypatch.setattr(remote, "LIMIT_S", 0.05)
    monkeypatch.setattr(remote, "_file_system", lambda url: threading.Event().wait())
    with pytest.raises(UserError, match="cannot list gs://b/run: no answer within"):
        remote.check_access("gs://b/run")


def test_the_missing_library_is_named(monkeypatch):
    """Catches an ImportError where the extra was not installed."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    schemes.SCHEMES["gs"].forget()
    with pytest.raises(UserError, match=r"pip install 'electra_jax\[gcs\]'"):
        remote.check_access("gs://b/run")


@pytest.mark.slow
def test_a_bucket_that_is_not_there(either_bucket):
    """Catches a misspelt bucket that counts as an empty folder."""
    remote.check_access(f"{either_bucket}/new/run", write=True)
    assert remote.sizes(either_bucket) == {}
    with pytest.raises(UserError, match="no such bucket"):
        remote.check_access(either_bucket.replace("bucket", "misspelt") + "/run")


@pytest.mark.slow
def test_there_and_back(either_bucket, tmp_path):
    """Catches files lost, renamed or changed on the way, and a copy that is there before it is whole."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.bin").write_bytes(bytes(range(256)) * 100)
    (folder / "fingerprint.json").write_text("{}")
    url = remote.join(either_bucket, "x")
    with remote.output(url) as local:
        (tmp_path / "folder").rename(local)
    assert remote.sizes(url) == {"sub/a.bin": 25600, "fingerprint.json": 2}
    target, told = tmp_path / "back" / "a.bin", []
    remote.fetch(remote.join(url, "sub/a.bin"), target, told=told.append)
    assert target.read_bytes() == bytes(range(256)) * 100 and sum(told) == 25600
    with pytest.raises(UserError, match="damaged"):
        remote.fetch(remote.join(url, "sub/a.bin"), tmp_path / "other", sha256="0" * 64)
    assert not (tmp_path / "other").exists() and len(list((tmp_path / "back").iterdir())) == 1
    with pytest.raises(UserError, match="already exists"), remote.output(url):
        pass


@pytest.mark.slow
def test_a_file_and_inputs_there_and_back(either_bucket, tmp_path):
    """Catches predictions that become a folder on the bucket, and copies of inputs that are kept or lack a file."""
    url = remote.join(either_bucket, "x", "predictions.tsv")
    with remote.output(url) as local:
        assert local.endswith("/predictions.tsv")
        Path(local).write_text("rows")
    assert remote.read(url) == b"rows"
    with pytest.raises(UserError, match="already exists"), remote.output(url):
        pass
    remote.write(remote.join(either_bucket, "x", "sub", "b"), b"more")
    with remote.inputs(url, remote.join(either_bucket, "x"), str(tmp_path), "") as (
        one,
        all_,
        here,
        none,
    ):
        assert Path(one).read_text() == "rows" and Path(all_, "sub", "b").read_text() == "more"
        assert (here, none) == (str(tmp_path), "")
    assert not Path(one).exists() and not Path(all_).exists()
    with (
        pytest.raises(UserError, match="does not exist"),
        remote.inputs(either_bucket + "/nowhere"),
    ):
        pass


def test_a_full_disk_is_seen_before_the_copy(tmp_path):
    """Catches a copy that fills the disk before it fails."""
    remote.refuse_full_disk(tmp_path / "not" / "there", 1, "a copy")
    with pytest.raises(UserError, match=r"1000000.00 GB on local disk.*ELECTRA_JAX_CACHE"):
        remote.refuse_full_disk(tmp_path / "not" / "there", 10**15, "a copy")


class Shard(io.BytesIO):
    """A file on a bucket that ends its first block by `then`."""

    def __init__(self, then) -> None:
        super().__init__(b"x" * 100)
        self._then = then

    def read(self, count=-1):
        """A few bytes, and then what is wrong."""
        return super().read(10) if self.tell() == 0 else self._then()


@pytest.mark.parametrize(
    ("then", "message", "status"),
    [
        (lambda: threading.Event().wait(), "no answer within", 75),
        (raises(Refusal(503)), "refused, 503", 75),
        (raises(ConnectionResetError("reset by peer")), "reset by peer", 75),
        (raises(Refusal(401)), "no credentials, or they have expired", 2),
        (raises(OSError(errno.ENOSPC, "No space left")), "the disk is full", 2),
    ],
)
def test_a_bucket_that_fails_in_the_middle_of_a_shard(monkeypatch, tmp_path, then, message, status):
    """Catches a wait without end, a traceback, half a shard under its name, and an exit status that lies."""
    monkeypatch.setattr(remote, "STALL_S", 0.1)
    monkeypatch.setattr(remote, "_file_system", lambda url: Stub(lambda _: Shard(then)))
    with pytest.raises(UserError, match=message) as error:
        remote.fetch("gs://b/data/shard", tmp_path / "shard")
    assert error.value.status == status and list(tmp_path.iterdir()) == []


def test_expired_credentials_of_s3(s3_bucket):
    """Catches an expired token that is called a missing permission, and a new login that is never looked at."""
    from botocore.exceptions import ClientError

    raised = PermissionError("The provided token has expired.")
    raised.__cause__ = ClientError({"Error": {"Code": "ExpiredToken"}}, "PutObject")
    scheme = schemes.SCHEMES["s3"]
    before = scheme.file_system()
    with (
        pytest.raises(UserError, match=r"expired .*aws sso login"),
        answers.explained(s3_bucket, "x"),
    ):
        raise raised
    assert scheme.file_system() is not before
    with pytest.raises(UserError, match="permission denied.*s3:PutObject"):  # noqa: SIM117
        with answers.explained(s3_bucket, "write"):
            raise PermissionError("Access Denied")
