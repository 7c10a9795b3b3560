"""A whole run on devices of two slices: errors before it begins, its losses, its evaluation, one slice after it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax import cli
from electra_jax.learn import hardware
from electra_jax.learn import mesh as meshes
from electra_jax.pretrain import evaluate, loop


@pytest.fixture
def two_slices(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process's devices are of two slices, in turn."""

    def arrange(slices: Sequence[Sequence[jax.Device]], data: int, fsdp: int) -> np.ndarray:
        return np.array([device for slice in slices for device in slice]).reshape(data, fsdp)

    monkeypatch.setattr(meshes, "by_slice", lambda found: [list(found)[0::2], list(found)[1::2]])
    monkeypatch.setattr(meshes, "arrange", arrange)
    return monkeypatch


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.mesh.fsdp=8"], "does not fit 2 slices of 4 devices"),
        (["--config.mesh.data=1"], "nearest that fits: data=2 x fsdp=4"),
        (["--config.mesh.data=2", "--config.mesh.fsdp=2"], "does not fit 8 devices"),
    ],
)
def test_a_run_whose_mesh_does_not_fit_the_slices(
    two_slices, prepared_folder: Path, tmp_path: Path, capsys, flags: list[str], said: str
):
    """Catches a traceback where the machine already costs, and a workdir left behind by a run that never began."""
    typed = ["pretrain", "--config", "tiny", "--workdir", str(tmp_path / "run"), *flags]
    assert cli.main([*typed, f"--config.data.path={prepared_folder}"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: mesh data=") and said in error and "\n" not in error
    assert not (tmp_path / "run").exists()


TIMES = {"tokens_per_s", "model_flops_per_s", "mfu", "mfu_of_matmul", "data_wait", "goodput"}


def untimed(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


@pytest.mark.slow
def test_a_run_on_two_slices_is_the_run_on_one(two_slices, config, tmp_path: Path):
    """Catches a checkpoint of two slices that one cannot read, an evaluation that counts rows twice, and any loss that
    depends on which slice a device is of: it begins on two slices and ends on one, bit for bit the run on one."""
    two_slices.setattr(hardware, "_time_matmuls", lambda size, dtype: 1.0)
    options = ("mesh.fsdp=2", "train.steps=4", "train.log_every=1", "train.stop_at=2")
    made = config(*options, "optim.warmup=0")
    scores = []
    for name in ("two", "one"):
        loop.pretrain(made, tmp_path / name)
        scores.append(evaluate.evaluate_workdir(tmp_path / name))
        two_slices.undo()
    assert scores[0] == scores[1] and scores[0]["step"] == 2
    for name in ("two", "one"):
        loop.pretrain(None, tmp_path / name, ["train.stop_at=0"])
    assert untimed(tmp_path / "two") == untimed(tmp_path / "one")
    assert untimed(tmp_path / "two")[-1]["step"] == 4
