"""A workdir on a bucket: killed, resumed, evaluated and exported it is what it is on a disk."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import remote
from electra_jax.convert import hf
from electra_jax.spec import UserError
from electra_jax.train import away, checkpoint, evaluate, loop, program
from electra_jax.train.arrays import flatten
from electra_jax.train.options import Phase


def test_a_local_workdir_is_its_own_home(tmp_path):
    """Catches a copy, or a bucket's library, where neither is needed."""
    with away.opened(tmp_path / "run") as home:
        home.send()
        assert home.folder == tmp_path / "run"
    assert not home.folder.exists()


@pytest.mark.slow
def test_small_files_go_there_and_come_back(bucket, tmp_path):
    """Catches a file that is lost with the machine, sent again unchanged, or left behind on its disk."""
    url = f"{bucket}/a/run"
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
    assert found.pop(checkpoint.ELSEWHERE) == f"{url}/checkpoints"
    assert found == {"config.json": "untouched", "vocab.txt": "x", "metrics.jsonl": "2"}
    assert remote.read(remote.join(url, "metrics.jsonl")) == b"23"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.slow
def test_a_run_on_a_bucket(bucket, config, prepared_folder, tmp_path, monkeypatch):
    """Catches a run that a bucket changes: a checkpoint or line lost, a half-written one trusted, a wrong export."""
    monkeypatch.setattr(program, "use_compilation_cache", lambda: None)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    remote.publish(prepared_folder, f"{bucket}/data")
    url = f"{bucket}/runs/one"
    options = ("train.log_every=1", f"data.path={bucket}/data")

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
        json.loads(remote.read(f"{url}/config.json"))["config"]["data"]["path"] == f"{bucket}/data"
    )

    values = evaluate.evaluate_workdir(url)
    assert values["data"] == f"{bucket}/data"
    assert json.loads(remote.read(f"{url}/evaluate-20.json")) == values
    hf.export(url, f"{bucket}/hf")
    hf.export(tmp_path / "run", tmp_path / "hf")
    weights = remote.read(f"{bucket}/hf/discriminator/model.safetensors")
    assert weights == (tmp_path / "hf" / "discriminator" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="already exists"):
        hf.export(url, f"{bucket}/hf")


def steps(url: str) -> list[int]:
    """The finished checkpoints on a bucket."""
    with away.opened(url, write=False) as home:
        return checkpoint.Checkpoints(home.folder).steps()


def homes(*workdirs: str | Path):
    """Each workdir's local folder, while it is looked at."""
    for workdir in workdirs:
        with away.opened(workdir, write=False) as home:
            yield home.folder
