"""A workdir on a bucket: killed, resumed, evaluated and exported it is what it is on a disk."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax import remote
from electra_jax.answers import BucketError
from electra_jax.convert import hf
from electra_jax.learn import checkpoint, content, stored
from electra_jax.learn.arrays import flatten
from electra_jax.pretrain import evaluate, loop, session
from electra_jax.pretrain.options import Phase
from electra_jax.spec import UserError
from electra_jax.workdir import away
from electra_jax.workdir.owner import owned


def test_a_local_workdir_is_its_own_home(tmp_path):
    """Catches a copy, or a bucket's library, where neither is needed."""
    with away.opened(tmp_path / "run") as home:
        home.send()
        assert home.folder == tmp_path / "run"
    assert not home.folder.exists()


@pytest.mark.slow
def test_small_files_go_there_and_come_back(either_bucket, tmp_path):
    """Catches a file that is lost with the machine, sent again unchanged, or left behind on its disk."""
    url = f"{either_bucket}/a/run"
    with away.opened(url) as home:
        (home.folder / "config.json").write_text("1")
        (home.folder / "tokenizer").mkdir()
        (home.folder / "tokenizer" / "vocab.txt").write_text("x")
        home.send()
        remote.write(remote.join(url, "config.json"), b"untouched")
        (home.folder / "metrics.jsonl").write_text("2")
    assert not home.folder.exists()
    remote.write(remote.join(url, "checkpoints/3/big"), b"big")
    with pytest.raises(ZeroDivisionError), away.opened(url) as home:
        found = {p.name: p.read_text() for p in home.folder.rglob("*") if p.is_file()}
        (home.folder / "metrics.jsonl").write_text("23")
        raise ZeroDivisionError
    assert found.pop(stored.ELSEWHERE) == f"{url}/checkpoints"
    assert found == {"config.json": "untouched", "vocab.txt": "x", "metrics.jsonl": "2"}
    assert remote.read(remote.join(url, "metrics.jsonl")) == b"23"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_a_run_on_a_bucket(either_bucket, config, prepared_folder, tmp_path, monkeypatch):
    """Catches a run that a bucket changes: a checkpoint or line lost, a half-written one trusted, a wrong export."""
    remote.publish(prepared_folder, f"{either_bucket}/data")
    url = f"{either_bucket}/runs/one"
    options = ("train.log_every=1", f"data.path={either_bucket}/data")

    def killed(self: Phase, at: int, seed: int, rows=Phase.rows) -> np.ndarray:
        if at == 13:
            raise Killed
        return rows(self, at, seed)

    with monkeypatch.context() as patch:
        patch.setattr(Phase, "rows", killed)
        with pytest.raises(Killed):
            loop.pretrain(config(*options), url)
    assert 10 in steps(url)
    # What a save that was killed leaves: a step without its mark.
    remote.write(remote.join(url, "checkpoints/20/state/manifest.ocdbt"), b"")
    assert loop.pretrain(None, url)
    assert loop.pretrain(config("train.log_every=1"), tmp_path / "run")
    local, there = (checkpoint.read_params(place)[1] for place in homes(tmp_path / "run", url))
    for path, value in flatten(local).items():
        np.testing.assert_array_equal(value, flatten(there)[path])

    lines = [json.loads(line) for line in remote.read(f"{url}/metrics.jsonl").splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    keys = [(line["step"], line["split"]) for line in lines]
    assert sorted(keys) == sorted((line["step"], line["split"]) for line in expected)
    assert (
        json.loads(remote.read(f"{url}/config.json"))["config"]["data"]["path"]
        == f"{either_bucket}/data"
    )

    values = evaluate.evaluate_workdir(url)
    assert values["data"] == f"{either_bucket}/data"
    assert json.loads(remote.read(f"{url}/evaluate-20.json")) == values
    hf.export(url, f"{either_bucket}/hf")
    hf.export(tmp_path / "run", tmp_path / "hf")
    weights = remote.read(f"{either_bucket}/hf/discriminator/model.safetensors")
    assert weights == (tmp_path / "hf" / "discriminator" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="already exists"):
        hf.export(url, f"{either_bucket}/hf")


@pytest.mark.parametrize(
    "fault", [ConnectionResetError("reset"), ValueError("UNAVAILABLE: no answer"), TimeoutError()]
)
def test_a_bucket_that_cannot_be_read_damages_nothing(s3_bucket, monkeypatch, fault):
    """Catches a checkpoint called damaged, and moved aside, because the network was away for a moment."""
    url = f"{s3_bucket}/run"
    with away.opened(url, whole=True) as home, checkpoint.Checkpoints(home.folder) as saved:
        saved.save(1, {"params": {"kernel": jnp.arange(8.0)}}, {})
        saved.wait()

    def refuse(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patch, pytest.raises(BucketError) as error:
        patch.setattr(content, "_read_array", refuse)
        with away.opened(url, write=False) as home:
            checkpoint.read_params(home.folder)
    assert error.value.status == 75
    with away.opened(url, write=False) as home:
        assert checkpoint.read_params(home.folder)[0] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_credentials_that_expire_and_come_back(either_bucket, config, monkeypatch, capsys):
    """Catches a run that a refused save ends, one that says nothing of it, and a last state that is given up."""
    url = f"{either_bucket}/run"
    monkeypatch.setattr(session, "_LAST_SAVE_S", (0.01, 0.01))
    send, refusals = remote.send, []

    def refuse(source: Path, there: str) -> None:
        if 10 <= step[0] < 20 or (step[0] == 20 and len(refusals) < 3):
            refusals.append(there)
            raise BucketError(f"cannot write {there}: no credentials, or they have expired")
        send(source, there)

    step = [0]

    def counted(self, done, *arguments, save=session.Session.save, **options):
        step[0] = done
        save(self, done, *arguments, **options)

    monkeypatch.setattr(session.Session, "save", counted)
    monkeypatch.setattr(remote, "send", refuse)
    assert loop.pretrain(config("train.log_every=1"), url)
    said = capsys.readouterr().err
    assert "step 10 is not saved: cannot write" in said and "training goes on" in said
    assert "step 20 is not saved" in said and "it is tried again" in said
    assert steps(url) == [20]
    lines = [json.loads(line) for line in remote.read(f"{url}/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_credentials_that_expire_for_good(s3_bucket, config, monkeypatch, tmp_path):
    """Catches the work of a whole run removed with the local copy, and an exit status that starts no other."""
    url = f"{s3_bucket}/run"
    monkeypatch.setattr(session, "_LAST_SAVE_S", (0.01,))

    def refuse(source: Path, there: str) -> None:
        raise BucketError(f"cannot write {there}: no answer", passing=True)

    def later(self, *arguments, save=session.Session.save, **options):
        monkeypatch.setattr(remote, "send", refuse)
        save(self, *arguments, **options)

    monkeypatch.setattr(session.Session, "save", later)
    with pytest.raises(BucketError, match="What was not sent is kept in ") as error:
        loop.pretrain(config(), url)
    assert error.value.status == 75
    (kept,) = (tmp_path / "cache" / "workdirs").glob("*/bucket/run")
    assert str(kept) in str(error.value) and (kept / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_on_a_bucket_is_put_aside(bucket):
    """Catches a damaged checkpoint that is trained on, that stops a run, or whose place stays taken for ever:
    a bucket cannot rename a folder."""
    url = f"{bucket}/run"
    state = {"step": jnp.int32(1), "params": {"kernel": jnp.arange(4096.0)}}
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    with away.opened(url) as home, checkpoint.Checkpoints(home.folder) as saved:
        for step in (1, 2):
            saved.save(step, state | {"step": jnp.int32(step)}, {})
    stored = {n: size for n, size in remote.sizes(f"{url}/checkpoints/2").items() if "/d/" in n}
    name = max(stored, key=stored.__getitem__)
    path = f"{url}/checkpoints/2/{name}"
    remote.write(path, remote.read(path)[: stored[name] // 2])
    with away.opened(url) as home, checkpoint.Checkpoints(home.folder) as saved:
        found, back, _ = saved.restore(like)
        assert found == 1 and int(back["step"]) == 1
        saved.save(2, state | {"step": jnp.int32(2)}, {})
    with away.opened(url, write=False) as home:
        saved = checkpoint.Checkpoints(home.folder)
        assert saved.steps() == [1, 2]
        assert saved.restore(like)[0] == 2
    aside = remote.sizes(f"{url}/checkpoints/2.damaged")
    assert aside[name] == stored[name] // 2


def test_a_second_start_on_a_bucket_is_refused(either_bucket, monkeypatch):
    """Catches two runs on one workdir that have no disk in common, and a second one that sends what it must not."""
    quick = functools.partial(owned, heartbeat_s=0.1, expiry_s=30, settle_s=0.05)
    monkeypatch.setattr(away, "owned", quick)
    url = f"{either_bucket}/run"
    with away.opened(url) as first, first.held():
        (first.folder / "config.json").write_text("first")
        first.send()
        with pytest.raises(UserError, match=r"run is in use by process \d+ on "):  # noqa: SIM117
            with away.opened(url) as second, second.held():
                pytest.fail("held twice")
        first.send()
    assert remote.read(f"{url}/config.json") == b"first"
    with away.opened(url) as third, third.held():
        assert (third.folder / "config.json").read_text() == "first"


def steps(url: str) -> list[int]:
    """The finished checkpoints on a bucket."""
    with away.opened(url, write=False) as home:
        return checkpoint.Checkpoints(home.folder).steps()


def homes(*workdirs: str | Path):
    """Each workdir's local folder, while it is looked at."""
    for workdir in workdirs:
        with away.opened(workdir, write=False) as home:
            yield home.folder
