"""Files hashed once a machine: a mark is believed only for the file it was made for."""

import os
import threading

import pytest

from electra_jax.data import marks, source
from electra_jax.data.verify import Verification
from electra_jax.spec import UserError


@pytest.fixture
def copy(folder, tmp_path, monkeypatch):
    """A prepared folder whose files are a minute old, and a cache folder of its own."""
    import shutil

    monkeypatch.setenv("ELECTRA_JAX_CACHE", str(tmp_path / "cache"))
    copy = shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr(marks, "_RACY_NS", 0)  # nobody can set the time of a change of status
    return copy


def hashed(monkeypatch) -> list[str]:
    """The names of the files that are hashed from now on, as they come."""
    names, sha256 = [], Verification._sha256

    def counted(self, path):
        names.append(path.name)
        return sha256(self, path)

    monkeypatch.setattr(Verification, "_sha256", counted)
    return names


def test_a_second_start_hashes_nothing(copy, monkeypatch):
    """Catches a terabyte hashed at every start; what is known from marks counts as done."""
    names = hashed(monkeypatch)
    for _ in range(2):
        with Verification(source.open_prepared(copy)) as verification:
            verification.settle()
        assert verification.done == verification.total
    assert sorted(names) == sorted(path.name for path in copy.glob("*array_record-*"))


def test_processes_of_a_machine_share_the_work(copy, monkeypatch):
    """Catches eight processes that each hash all shards."""
    names = hashed(monkeypatch)
    both = [Verification(source.open_prepared(copy)) for _ in range(4)]
    threads = [threading.Thread(target=lambda v=v: v.__enter__().settle()) for v in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == len(set(names)) > 0
    assert all(v.finished for v in both)


@pytest.mark.parametrize("how", ["written", "exchanged"])
def test_a_mark_is_of_one_file(copy, how):
    """Catches damage hidden by a mark: a file written in place, or another in its place with the same times."""
    with Verification(source.open_prepared(copy)) as verification:
        verification.settle()
    path = min(copy.glob("*train.array_record-*"))
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "written":
        path.write_bytes(bytes(data))
    else:
        other = copy / "other"
        other.write_bytes(bytes(data))
        other.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with (
        Verification(source.open_prepared(copy)) as verification,
        pytest.raises(UserError, match=f"{path.name} has the sha256"),
    ):
        verification.settle()


def test_a_file_that_has_just_changed_is_not_marked(copy, monkeypatch):
    """Catches a mark of a file that may change again within the tick of the file system's clock."""
    monkeypatch.undo()
    path = copy / "fresh"
    path.write_bytes(b"x")
    with marks.hashing(path) as mine:
        assert mine
        marks.write(path, "0" * 64, marks.identity(path))
    assert marks.read(path) is None
    marks.write_copied(path, "0" * 64)
    assert marks.read(path) == "0" * 64


def test_no_cache_folder(copy, monkeypatch):
    """Catches a run that fails where the cache folder cannot be written: it hashes, and goes on."""
    monkeypatch.setenv("ELECTRA_JAX_CACHE", "/proc/nowhere")
    with Verification(source.open_prepared(copy)) as verification:
        verification.settle()
    assert verification.finished
