"""Checkpoints saved while the data are still being checked: kept, then confirmed or moved aside with the reason."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator

import pytest

from electra_jax.data import marks
from electra_jax.data.verify import Verification
from electra_jax.host import preempt
from electra_jax.learn import checkpoint, unconfirmed
from electra_jax.learn.arrays import flatten
from electra_jax.pretrain import loop
from electra_jax.pretrain.options import Phase
from electra_jax.spec import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap")]


class Hashing:
    """Hashing that waits until it is let go; it then gives the right sum, or a wrong one."""

    def __init__(self) -> None:
        self.go, self.wrong = threading.Event(), False

    def sha256(self, verification: Verification, path: object) -> str | None:
        while not self.go.wait(0.01):
            if verification._closing.is_set():
                return None
        return "0" * 64 if self.wrong else verification._shards[path]


@pytest.fixture
def hashing(monkeypatch) -> Iterator[Hashing]:
    """Nothing is marked, and hashing waits."""
    slow = Hashing()
    monkeypatch.setattr(marks, "read", lambda path: None)
    monkeypatch.setattr(marks, "write", lambda path, sha256, hashed: None)
    monkeypatch.setattr(Verification, "_sha256", lambda v, path: slow.sha256(v, path))
    yield slow
    slow.go.set()


def at_step(step: int, action, patch: pytest.MonkeyPatch) -> None:
    """Does something when the rows of a step are read."""
    rows = Phase.rows

    def acting(self: Phase, at: int, seed: int):
        if at == step:
            action()
        return rows(self, at, seed)

    patch.setattr(Phase, "rows", acting)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def preempted(config, folder, data, patch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Starts a run that is told to leave while its data are hashed; the step it saved."""
    with preempt.listening():
        at_step(7, terminate, patch)
        assert not loop.pretrain(config(*overrides, data=data), folder)
    patch.undo()
    return checkpoint.Checkpoints(folder).steps()[-1]


def test_sigterm_saves_while_data_are_hashed(config, prepared_folder, tmp_path, hashing, capsys):
    """Catches a spot machine that never gets on: SIGTERM in the first minutes saved nothing, for the save waited
    until all shards were hashed. The next start goes on from there and confirms it; the end is that of a run alone."""
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stopped = preempted(config, folder, prepared_folder, patch)
    assert 4 <= stopped <= 9
    assert set(unconfirmed.noted(folder / "checkpoints")) == {stopped}
    checkpoint.read_params(folder)
    assert f"{stopped} was saved before all data had been checked" in capsys.readouterr().err
    hashing.go.set()
    assert loop.pretrain(None, folder)
    assert f"resuming {folder} after step {stopped}" in capsys.readouterr().err
    assert unconfirmed.noted(folder / "checkpoints") == {}
    loop.pretrain(config(), tmp_path / "alone")
    ours, theirs = (
        flatten(checkpoint.read_params(tmp_path / name)[1]) for name in ("run", "alone")
    )
    assert all(x.tobytes() == theirs[name].tobytes() for name, x in ours.items())


def test_damage_found_after_a_save(config, tmp_path, hashing, capsys):
    """Catches a model of damaged data that is kept as if nothing were: what was saved meanwhile is moved aside with
    the reason, and the next start begins where the data were whole."""
    folder = tmp_path / "run"

    def found() -> None:
        hashing.wrong = True
        hashing.go.set()

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="has the sha256 0000"),
    ):
        at_step(17, found, patch)
        loop.pretrain(config(), folder)
    assert "10 is moved aside:" in capsys.readouterr().err
    assert checkpoint.Checkpoints(folder).steps() == []
    assert "has the sha256 0000" in (folder / "checkpoints/10.unverified/why.txt").read_text()
    hashing.wrong = False
    assert loop.pretrain(None, folder)
    assert checkpoint.Checkpoints(folder).steps() == [10, 20]


def test_a_file_replaced_between_two_starts(config, prepared_folder, tmp_path, hashing, capsys):
    """Catches a checkpoint of bytes that nobody can check any more, confirmed by other bytes."""
    data, folder = shutil.copytree(prepared_folder, tmp_path / "data"), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stopped = preempted(config, folder, data, patch)
    name = min(data.glob("*train.array_record-*"))
    shutil.copy(name, tmp_path / "other")
    (tmp_path / "other").replace(name)
    hashing.go.set()
    assert loop.pretrain(None, folder)
    said = capsys.readouterr().err
    assert f"{stopped} is moved aside: it was saved before" in said
    assert f"{name.name} had been checked, and that file has been replaced since" in said
    assert "resuming" not in said


def test_the_newest_confirmed_is_kept(config, tmp_path, hashing):
    """Catches a good checkpoint that makes room for ones whose data turn out to be damaged."""
    folder = tmp_path / "run"
    hashing.go.set()
    assert loop.pretrain(config("train.stop_at=4", "train.keep_last=1"), folder)
    assert checkpoint.Checkpoints(folder).steps() == [4]
    hashing.go.clear()

    def found() -> None:
        hashing.wrong = True
        hashing.go.set()

    more = ["train.stop_at=0", "train.checkpoint_every=2"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="has the sha256"):
        at_step(16, found, patch)
        loop.pretrain(None, folder, more)
    assert checkpoint.Checkpoints(folder).steps() == [4]
