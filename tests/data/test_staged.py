"""Prepared data on a bucket: copied once, checked, never taken for other data."""

import json
import shutil

import numpy as np
import pytest

from electra_jax import remote
from electra_jax.data import staged
from electra_jax.data.source import open_prepared
from electra_jax.spec import UserError

pytestmark = pytest.mark.slow  # the libraries of a cloud take seconds to import


@pytest.fixture
def url(bucket, folder) -> str:
    """A prepared folder on the bucket."""
    remote.publish(folder, f"{bucket}/data")
    return f"{bucket}/data"


def test_rows_are_those_of_the_folder(url, folder, monkeypatch):
    """Catches a copy that reads differently, is named by its cache, or is fetched at every start."""
    here, there = open_prepared(folder), open_prepared(url)
    assert there.fingerprint == here.fingerprint
    assert there.origin == url and here.origin == str(folder.resolve())
    numbers = np.arange(here.rows["train"])
    for name, rows in here.source("train").rows(numbers).items():
        np.testing.assert_array_equal(rows, there.source("train").rows(numbers)[name])
    monkeypatch.setattr(remote, "fetch", None)
    assert open_prepared(url).path == there.path


def test_an_interrupted_copy_goes_on(url, monkeypatch):
    """Catches a half-copied folder that is taken for whole, or copied again from the start."""
    fetch, fetched = remote.fetch, []

    def killed(source, *rest):
        if len(fetched) == 2:
            raise KeyboardInterrupt
        fetch(source, *rest)
        fetched.append(source)

    monkeypatch.setattr(remote, "fetch", killed)
    with pytest.raises(KeyboardInterrupt):
        staged.stage(url)
    monkeypatch.setattr(
        remote, "fetch", lambda source, *rest: fetched.append(source) or fetch(source, *rest)
    )
    staged.stage(url)
    assert len(fetched) == len(set(fetched)) == len(remote.sizes(url)) - 1


def test_what_is_wrong_with_a_folder_is_said(bucket, folder, tmp_path):
    """Catches a shard cut short, missing or changed on the way that is trained on."""
    info = json.loads((folder / "fingerprint.json").read_text())
    name = info["shards"][0]["name"]
    for kind in ("short", "missing", "changed"):
        copy = tmp_path / kind
        shutil.copytree(folder, copy)
        shard = copy / name
        if kind == "missing":
            shard.unlink()
        else:
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 1
            shard.write_bytes(content[: -1 if kind == "short" else None])
        remote.publish(copy, f"{bucket}/{kind}")
    for kind, message in (
        ("short", "expected"),
        ("missing", f"{name} is missing"),
        ("changed", "damaged"),
        ("nowhere", "no fingerprint.json"),
    ):
        with pytest.raises(UserError, match=message):
            open_prepared(f"{bucket}/{kind}")


def test_room_is_checked_before_anything_is_copied(url, monkeypatch):
    """Catches a disk that is filled up before the copy fails."""
    monkeypatch.setattr(remote, "SPARE_BYTES", 10**18)
    monkeypatch.setattr(remote, "fetch", None)
    with pytest.raises(UserError, match="free some space"):
        staged.stage(url)
