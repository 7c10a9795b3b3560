"""Kill -9 the real command at any moment and start it again: nothing that was learned or logged is lost.

The moments are tied to what the run shows (a line on stderr, a line of metrics.jsonl, a folder), with a seeded delay,
and checked after the kill, so that compilation, a step, a save and an evaluation are really hit.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.data import build
from electra_jax.train import checkpoint

pytestmark = pytest.mark.slow

STEPS, EVAL_EVERY, CHECKPOINT_EVERY = 120, 8, 4
# Every other key of metrics.jsonl must be equal to the last digit.
TIMING = {"tokens_per_s", "model_flops_per_s", "mfu", "mfu_of_matmul", "data_wait", "goodput"}
PATIENCE_S = 900.0  # for one start, on a machine that is busy with other things


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred rows of 32 tokens."""
    home, draw = tmp_path_factory.mktemp("corpus"), random.Random(0)
    words = [
        "the",
        "of",
        "and",
        "sea",
        "light",
        "stone",
        "river",
        "walks",
        "under",
        "quiet",
        "green",
        "opens",
    ]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words]
    (home / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    documents = [
        "\n".join(" ".join(draw.choices(words, k=draw.randrange(4, 30))) + "." for _ in range(6))
        for _ in range(200)
    ]
    (home / "text.txt").write_text("\n\n".join(documents) + "\n")
    build.prepare(
        [str(home / "text.txt")],
        home / "vocab.txt",
        32,
        home / "rows",
        valid_fraction=0.2,
        workers=1,
    )
    return home / "rows"


class Run:
    """A workdir, and the command that is started on it again and again."""

    def __init__(self, workdir: Path, data: Path, cache: Path) -> None:
        self.workdir, self.data = workdir, data
        self.log = workdir.with_suffix(".log")
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",  # one device: the fake ones only make the command slower
            "JAX_COMPILATION_CACHE_DIR": str(cache),
        }

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """The command a user would type: the whole one until the workdir holds the run, then the short one."""
        self.stale = self.partial()
        command = [sys.executable, "-m", "electra_jax", "pretrain", "--workdir", str(self.workdir)]
        if not (self.workdir / "config.json").exists():
            values = {
                "data.path": self.data,
                "train.steps": STEPS,
                "train.log_every": 1,
                "train.eval_every": EVAL_EVERY,
                "train.eval_batches": 4,
                "train.checkpoint_every": CHECKPOINT_EVERY,
            }
            command += [
                "--config",
                "tiny",
                *(f"--config.{name}={value}" for name, value in values.items()),
            ]
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment | environment
            )

    def finish(self) -> None:
        """Starts it and lets it end."""
        process = self.start()
        try:
            assert process.wait(PATIENCE_S) == 0, self.log.read_text()
        finally:
            process.kill()

    def kill(self, moment: "Moment", **environment: str) -> bool:
        """Starts it and kills it at the moment; whether that still held with the process dead."""
        process = self.start(**environment)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not moment.ready(self):
                assert process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.0005)
            time.sleep(moment.delay_s)
        finally:
            process.kill()
            status = process.wait()
        assert status == -9, self.log.read_text()
        return moment.ready(self)

    def partial(self) -> set[tuple[str, int]]:
        """The checkpoints that are being written, or that a kill left so, by name and inode."""
        folder = self.workdir / "checkpoints"
        if not folder.exists():
            return set()
        with os.scandir(folder) as entries:
            return {(e.name, e.inode()) for e in entries if "tmp" in e.name}

    def announced(self) -> bool:
        """Whether this start has read what earlier ones left, and says what it will do."""
        return b"trainable parameters" in self.log.read_bytes()

    def lines(self) -> list[dict]:
        """The whole lines of metrics.jsonl."""
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def checksums(self) -> dict:
        """Shape, dtype and checksum of every array in the last checkpoint."""
        record = self.workdir / "checkpoints" / str(STEPS) / "meta" / "metadata"
        return json.loads(record.read_text())["arrays"]

    def trained(self) -> int:
        """The last step that is logged."""
        return max((line["step"] for line in self.lines() if line["split"] == "train"), default=0)


def compiling(run: Run) -> bool:
    """No step has been made by this start."""
    return run.announced() and run.trained() in (0, *checkpoint.Checkpoints(run.workdir).steps())


def stepping(run: Run) -> bool:
    """Between two checkpoints."""
    return run.announced() and run.trained() % CHECKPOINT_EVERY == 2


def saving(run: Run) -> bool:
    """A checkpoint is being written, and has not got its name yet."""
    return run.announced() and bool(run.partial() - run.stale)


def evaluating(run: Run) -> bool:
    """The last step is logged, its evaluation is not."""
    last = run.lines()[-1:] if run.announced() else []
    return bool(last) and last[0]["step"] % EVAL_EVERY == 0 and last[0]["split"] == "train"


@dataclass(frozen=True)
class Moment:
    """What to hit, not before which step, and how long after it shows."""

    name: str
    shows: Callable[[Run], bool]
    step: int = 0
    delay_s: float = 0.0

    def ready(self, run: Run) -> bool:
        return run.trained() >= self.step and self.shows(run)


def moments(draw: random.Random) -> list[Moment]:
    """Compilation first, then one of each kind in an order, at steps and with delays that depend on the seed."""
    kinds = [
        ("starting", lambda _: True, draw.uniform(0.5, 4.0)),
        ("stepping", stepping, 0.0),
        ("saving", saving, draw.uniform(0, 0.004)),
        ("evaluating", evaluating, draw.uniform(0, 0.02)),
        ("saving", saving, 0.0),
    ]
    draw.shuffle(kinds)
    steps = sorted(draw.choices(range(STEPS * 2 // 3), k=len(kinds)))
    later = [
        Moment(name, shows, step, delay)
        for (name, shows, delay), step in zip(kinds, steps, strict=True)
    ]
    return [Moment("compiling", compiling, delay_s=draw.uniform(0, 0.5)), *later]


def without_timing(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    """The run that nobody killed; its compiled programs serve the others."""
    home = tmp_path_factory.mktemp("undisturbed")
    run = Run(home / "run", data, home / "cache")
    run.finish()
    return run


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_and_started_again_it_ends_as_if_undisturbed(
    tmp_path: Path, undisturbed: Run, seed: int
):
    """Catches state that is neither in the checkpoint nor a function of the step, and a line logged twice or lost."""
    run = Run(
        tmp_path / "run",
        undisturbed.data,
        Path(undisturbed.environment["JAX_COMPILATION_CACHE_DIR"]),
    )
    hit, planned = [], moments(random.Random(seed))
    for moment in planned:
        for attempt in range(8):
            # Compilation takes long enough to be hit only where nothing is cached.
            cold = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"cold{attempt}")}
            if run.kill(moment, **(cold if moment.name == "compiling" else {})):
                hit.append(f"{moment.name} at step {run.trained()}")
                break
    print(hit)
    assert len(hit) == len(planned), hit
    run.finish()

    lines = run.lines()
    keys = [(line["step"], line["split"]) for line in lines]
    assert len(set(keys)) == len(keys)
    assert without_timing(lines) == without_timing(undisturbed.lines())
    assert {line["step"] for line in lines if line["split"] == "train"} == set(range(1, STEPS + 1))

    ours, theirs = (checkpoint.read_params(r.workdir) for r in (run, undisturbed))
    assert ours[0] == theirs[0] == STEPS
    assert jax.tree.structure(ours[1]) == jax.tree.structure(theirs[1])
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))
    assert run.checksums() == undisturbed.checksums()  # of the optimizer's state too
