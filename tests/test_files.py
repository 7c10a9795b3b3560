"""Files and folders that appear whole or not at all, and disk errors in one line."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax import files
from electra_jax.spec import UserError


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden things included."""
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_on_success_only(tmp_path: Path):
    """Catches output under its final name before it is complete."""
    with files.new_folder(tmp_path / "a" / "out") as folder:
        (folder / "part").write_text("x")
        assert not (tmp_path / "a" / "out").exists()
    assert names(tmp_path / "a") == ["out"]
    assert (tmp_path / "a" / "out" / "part").read_text() == "x"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_vanishes_on_failure(tmp_path: Path, fault: type[BaseException]):
    """Catches half an output, or its temporary folder, left behind by an error or Ctrl-C."""
    with pytest.raises(fault), files.new_folder(tmp_path / "out") as folder:
        (folder / "part").write_text("x")
        raise fault
    assert names(tmp_path) == []


def test_an_empty_folder_is_taken_and_a_link_followed(tmp_path: Path):
    """Catches `mkdir out && electra-jax ... --output out` being refused, and a link being overwritten."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.new_folder(tmp_path / "link") as folder:
        (folder / "part").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["part"]


def test_a_new_folder_has_ordinary_permissions(tmp_path: Path):
    """Catches output that only its maker can read, as temporary folders are."""
    before = os.umask(0o022)
    try:
        with files.new_folder(tmp_path / "out"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_ordinary_permissions(tmp_path: Path, mask: int):
    """Catches a file that only its maker can read, or everybody, whatever the umask says: temporary files have 0600."""
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "text", "x")
        with files.new_file(tmp_path / "replaced") as temporary:
            temporary.unlink()  # as libraries do that write beside and rename
            temporary.touch(0o600)
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask} and names(tmp_path) == ["replaced", "text"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_file_stays_what_it_was_on_failure(tmp_path: Path, fault: type[BaseException]):
    """Catches half a file in place of the whole one, and a temporary file left behind."""
    (tmp_path / "x").write_text("old")
    with pytest.raises(fault), files.new_file(tmp_path / "x") as temporary:
        temporary.write_text("ne")
        raise fault
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize(
    "address", ["s3://b/x", "gs://b/x", Path("gs://b/x"), "hdfs://h/x", "file:///x"]
)
def test_an_address_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | Path
):
    """Catches `gs://b/x` written into a local folder `gs:`, and "wrote" said of it."""
    monkeypatch.chdir(tmp_path)
    for write in (
        lambda: files.new_folder(address).__enter__(),
        lambda: files.write_bytes(address, b""),
        lambda: files.make_folder(address),
        lambda: files.refuse_existing(address),
    ):
        with pytest.raises(UserError, match="is an address, and here a local path is needed"):
            write()
    assert names(tmp_path) == []


def test_a_place_where_no_folder_can_be(tmp_path: Path):
    """Catches a traceback for an output in /proc, or below a file."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder can be made there"):
        files.make_folder("/proc/x/y")
    with pytest.raises(UserError, match="is a file"):
        files.make_folder(tmp_path / "file")


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches RuntimeError where nothing says where a user's caches go, and a stranger's folder that is used."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    found = files.user_cache()
    assert found.parent == tmp_path and found.stat().st_mode & 0o777 == 0o700
    assert files.user_cache() == found
    found.rmdir()
    found.symlink_to(tmp_path)
    with pytest.raises(UserError, match="belongs to somebody else.*XDG_CACHE_HOME"):
        files.user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert files.user_cache() == Path("/caches")


def test_what_exists_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches work that is thrown away, or an output written over another."""
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "full", "dangling"):
        with (
            pytest.raises(UserError, match=f"{name} already exists"),
            files.new_folder(tmp_path / name),
        ):
            pytest.fail("work began")
    with (
        pytest.raises(UserError, match="file is a file"),
        files.new_folder(tmp_path / "file" / "out"),
    ):
        pytest.fail("work began")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="current folder"), files.new_folder("."):
        pytest.fail("work began")


def test_a_place_without_folders_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches an output in /proc that is refused after the work, with a traceback."""

    def refused(*_: object, **__: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(files.tempfile, "mkdtemp", refused)
    with pytest.raises(UserError, match="no folder can be made there .No such file"):
        files.refuse_existing(tmp_path / "x" / "y")
    monkeypatch.setattr(files.tempfile, "mkdtemp", lambda **_: str(tmp_path / "gone"))
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match="no folder can be made"), files._no_place("x"):
        Path("x").mkdir()


def test_the_slower_of_two_is_refused(tmp_path: Path):
    """Catches two processes that write one output: the second must not merge into or replace the first."""
    with (
        pytest.raises(UserError, match="already exists"),
        files.new_folder(tmp_path / "out") as slow,
    ):
        (slow / "slow").write_text("")
        with files.new_folder(tmp_path / "out") as fast:
            (fast / "fast").write_text("")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["fast"]


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a reader seeing half a file, or a failed write that costs the old content."""
    path, reader = tmp_path / "x.json", tmp_path / "reader"
    files.write_text(path, "old")
    os.link(path, reader)  # somebody who has the old file open
    files.write_json(path, {"a": "é"})
    assert reader.read_text() == "old"
    reader.unlink()
    assert json.loads(path.read_text()) == {"a": "é"}
    assert "é" in path.read_text(encoding="utf-8")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        files.write_json(path, {"a": "longer than before"})
    assert json.loads(path.read_text()) == {"a": "é"}
    assert names(tmp_path) == ["x.json"]


def test_nan_is_no_json(tmp_path: Path):
    """Catches NaN in a JSON file, which other readers refuse."""
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_disk_errors_are_the_users(code: int, tmp_path: Path):
    """Catches a traceback for a full, read-only, forbidden or broken disk."""
    with pytest.raises(UserError, match=f"cannot write {tmp_path}"), files.disk_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_other_errors_stay_what_they_are(tmp_path: Path):
    """Catches a bug of ours being reported as the disk's fault."""
    with pytest.raises(FileNotFoundError), files.disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()


def test_a_full_disk_under_a_folder(tmp_path: Path):
    """Catches a disk that fills up inside new_folder: a traceback, or a part left behind."""
    with (
        pytest.raises(UserError, match="disk is full"),
        files.new_folder(tmp_path / "out") as folder,
    ):
        (folder / "part").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "part"))
    assert names(tmp_path) == []


def test_sha256_reads_the_whole_file(tmp_path: Path):
    """Catches a digest of the name, of text, or of the first block."""
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert files.sha256(tmp_path / "x") == expected


def test_what_dead_processes_left_is_removed(tmp_path):
    """Catches partial outputs that stay for ever after kill -9; and the removal of what is still being written."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    machine = files._machine()
    gone = [
        f".out.partial-{dead.pid}-{machine}-abcdef",
        f".out.partial-{dead.pid}-{machine}-012345",
    ]
    kept = [
        f".out.partial-{os.getpid()}-{machine}-abcdef",  # a live process
        f".out.partial-{dead.pid}-00000000-abcdef",  # of another machine, whose processes are not known here
        f".other.partial-{dead.pid}-{machine}-abcdef",
        f".out.partial-{dead.pid}-abcdef",
    ]
    for name in [*gone[:1], *kept]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    (tmp_path / gone[1]).write_text("half")
    with files.new_folder(tmp_path / "out") as folder:
        assert not any((tmp_path / name).exists() for name in gone)
        assert folder.name.startswith(f".out.partial-{os.getpid()}-{machine}-")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "out"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']"),
    ],
)
def test_a_full_disk_in_the_words_of_every_library(tmp_path, error):
    """Catches a full disk that ends in a traceback because a native library has errors of its own."""
    with pytest.raises(UserError, match="the disk is full"), files.disk_errors(tmp_path):
        raise error
    with pytest.raises(ValueError, match="another"), files.disk_errors(tmp_path):
        raise ValueError("another")
