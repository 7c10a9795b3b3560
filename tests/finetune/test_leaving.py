"""A fine-tuning that is told to leave, that several processes share, and that goes on on another mesh."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import cli
from electra_jax.finetune import program
from electra_jax.learn import mesh as meshes

WORDS = "a b c d e f g h"
STEPS = 15  # three epochs of 5
FLAGS = (
    "--config=finetune:classify",
    "--init=random",
    "--text=text",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.model.ffn=32",
    "--config.model.embedding=16",
    "--config.model.positions=16",
    "--config.train.epochs=3",
    "--config.train.batch=16",
    "--config.train.buckets=1",
    "--config.train.log_every=1",
    "--config.train.accumulation=1",
    "--config.eval.batch=16",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a small task and its vocabulary."""
    folder, draw = tmp_path_factory.mktemp("leaving"), random.Random(0)
    for name, count in (("train", 80), ("dev", 20)):
        texts = [" ".join(draw.choices(WORDS.split(), k=6)) for _ in range(count)]
        lines = [f"{text}\t{'yes' if 'a' in text else 'no'}" for text in texts]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many of the devices the next command takes."""
    build, count = meshes.build, [1]
    monkeypatch.setattr(meshes, "build", lambda spec: build(spec, jax.devices()[: count[0]]))
    return count


def command(home: Path, workdir: str, *more: str) -> list[str]:
    files = [f"--{name}={home / name}.tsv" for name in ("train", "dev")]
    given = [*files, f"--tokenizer={home / 'vocab.txt'}", f"--workdir={home / workdir}"]
    return ["finetune", *FLAGS, *given, *more]


def lines(home: Path, workdir: str, run: str = "seed0") -> list[dict]:
    path = home / workdir / "runs" / run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def losses(home: Path, workdir: str) -> list[float]:
    return [line["loss"] for line in lines(home, workdir) if line["split"] == "train"]


def test_told_to_leave_and_gone_on_elsewhere(home, devices, monkeypatch, capsys):
    """Catches steps lost at SIGTERM (the checkpoint is far), an exit status that no scheduler starts again, results of
    a run that is not finished, and a resumed run that needs the mesh it began on."""
    assert cli.main(command(home, "whole")) == 0
    step, left = program.Program.step, iter(range(7))

    def told(self, *arguments):
        if next(left, None) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(program.Program, "step", told)
        assert cli.main(command(home, "left")) == 75
    said = capsys.readouterr().err
    assert "stopped after step 7" in said
    assert f"to go on: electra-jax finetune --workdir {home / 'left'}" in said
    assert not (home / "left/results.json").exists()
    devices[0] = 4
    assert cli.main(["finetune", f"--workdir={home / 'left'}"]) == 0
    assert len(losses(home, "left")) == STEPS
    assert losses(home, "left")[:7] == losses(home, "whole")[:7]
    assert np.allclose(losses(home, "left"), losses(home, "whole"), rtol=1e-5)


def test_a_first_step_that_is_not_finite(home, devices, capsys):
    """Catches a fine-tuning that goes on without learning from its first step on."""
    flags = [flag for flag in FLAGS if "init_std" not in flag]
    assert cli.main(command(home, "inf", "--config.model.init_std=1e38", *flags[-1:])) == 2
    said = capsys.readouterr().err
    assert "not finite in the very first step" in said and "Traceback" not in said


@pytest.mark.slow
def test_two_processes_then_one(home):
    """Catches a second process that writes too, or waits for ever; SIGTERM to one of two that leaves the other; results
    that depend on how many there are."""
    assert cli.main(command(home, "alone", "--config.mesh.data=8")) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }

    def start(index: int) -> subprocess.Popen[str]:
        several = ["--coordinator", f"127.0.0.1:{port}", "--processes=2", f"--process={index}"]
        words = [sys.executable, "-m", "electra_jax", *command(home, "shared"), *several]
        words.append("--config.train.epochs=300")
        return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    both = [start(index) for index in (0, 1)]
    deadline = time.monotonic() + 120
    while len(losses(home, "shared")) < STEPS:
        assert time.monotonic() < deadline and all(p.poll() is None for p in both)
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [75, 75], said
    assert "to go on" in said[0] and "to go on" not in said[1]
    done = len(losses(home, "shared"))
    alone = losses(home, "alone")[:2]  # later ones follow another schedule
    assert np.allclose(losses(home, "shared")[:1], alone[:1], rtol=1e-5)
    assert cli.main(["finetune", f"--workdir={home / 'shared'}"]) == 0
    assert len(losses(home, "shared")) == 1500 > done >= STEPS
    assert json.loads((home / "shared/results.json").read_text())["runs"][0]["epochs"][-1]["step"]
