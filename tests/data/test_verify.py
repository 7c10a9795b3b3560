"""The shards against their checksums: what is damaged or exchanged is named, and nothing of it is kept."""

import os
import shutil

import numpy as np
import pytest

from electra_jax.data import source
from electra_jax.data.verify import Verification
from electra_jax.spec import UserError


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def shard(copy):
    return min(copy.glob("*train.array_record-*"))


def test_good_data_settle(copy):
    """Catches a check that refuses what is whole, and bytes that it left out."""
    with Verification(source.open_prepared(copy)) as verification:
        verification.settle()
    assert (
        verification.done
        == verification.total
        == sum(path.stat().st_size for path in copy.glob("*array_record-*"))
    )


def test_every_flipped_bit_is_found(copy):
    """Catches bits that nothing covers: every read of a flipped byte is refused or gives the right rows,
    and the checksum finds it wherever it is."""
    whole = shard(copy).read_bytes()
    prepared = source.open_prepared(copy)
    everything = np.arange(prepared.rows["train"])
    expected = prepared.source("train").rows(everything)
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 12).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        shard(copy).write_bytes(bytes(data))
        damaged = source.open_prepared(copy)
        try:
            found = damaged.source("train").rows(everything)
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
        except UserError as error:
            assert shard(copy).name in str(error)
            refused += 1
        with (
            Verification(damaged) as verification,
            pytest.raises(UserError, match=f"{shard(copy).name} has the sha256"),
        ):
            verification.settle()
    assert refused


@pytest.mark.parametrize("how", ["renamed", "written", "removed"])
def test_files_that_change_under_a_run(copy, tmp_path, how: str):
    """Catches rows of another file taken for those of the run, though size and format are right."""
    with Verification(source.open_prepared(copy)) as verification:
        verification.settle()
        path = shard(copy)
        if how == "renamed":
            other = shutil.copytree(copy, tmp_path / "other")
            os.rename(copy, tmp_path / "aside")
            os.rename(other, copy)
        elif how == "written":
            path.write_bytes(path.read_bytes()[::-1])
        else:
            path.unlink()
        with pytest.raises(UserError, match=f"{path.name} was replaced or changed"):
            verification.settle()


def test_leaving_early(copy):
    """Catches a run that, ended, waits until all its data are hashed."""
    with Verification(source.open_prepared(copy)) as verification:
        verification._closing.set()
    assert not verification._thread.is_alive()
