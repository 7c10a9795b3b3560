"""Several processes, really started: they agree before the first step, save together, and do not outwait the dead."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_jax.host import processes as joining
from electra_jax.host.processes import HEARTBEAT_S, Plan, _has_tpu, plan
from electra_jax.learn import checkpoint
from electra_jax.spec import UserError

STEPS = 24
PATIENCE_S = 900.0  # for one start, on a machine that is busy with other things
ALL = {
    "JAX_COORDINATOR_ADDRESS": "host:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    "JAX_PLATFORMS": "cpu",
}


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ((None, None, None), {"JAX_PLATFORMS": "cpu"}, None),
        ((None, None, None), ALL, Plan("host:1234", 2, 1)),
        (("other:1", 4, 0), ALL, Plan("other:1", 4, 0)),
        ((None, None, 0), ALL, Plan("host:1234", 2, 0)),
        ((None, None, None), {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "n[1-2]"}, Plan()),
        (
            (None, None, None),
            {"SLURM_NTASKS": "2", "JAX_PLATFORMS": "cpu"},
            None,
        ),  # sbatch, no srun
        (
            (None, None, None),
            {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n", "JAX_PLATFORMS": "cpu"},
            None,
        ),
        ((None, None, None), {"OMPI_COMM_WORLD_SIZE": "3"}, Plan()),
    ],
)
def test_who_is_told_what(flags: tuple, environment: dict, expected: Plan | None):
    """Catches a flag that an environment variable overrides, a single process that opens a port, and a job of
    several that runs as many copies of the same run."""
    assert plan(*flags, environment) == expected


def test_several_slices_are_never_taken_for_one(monkeypatch):
    """Catches a slice that trains alone, each its own copy of the run, because the others could not be found."""
    monkeypatch.setattr(joining, "_on_tpu", lambda environment: True)
    assert plan(None, None, None, {}) == Plan(perhaps=True)
    assert plan(None, None, None, {"MEGASCALE_NUM_SLICES": "1"}) == Plan(perhaps=True)
    assert plan(None, None, None, {"MEGASCALE_NUM_SLICES": "2"}) == Plan()
    with pytest.raises(UserError, match="MEGASCALE_NUM_SLICES='two' is not a whole number"):
        plan(None, None, None, {"MEGASCALE_NUM_SLICES": "two"})

    def lost(*told: object, **more: object) -> None:
        raise RuntimeError("Failed to recognize coordinator address slice-0")

    monkeypatch.setattr(joining.jax.distributed, "initialize", lost)
    with (
        pytest.raises(UserError, match="cannot join.*slice-0"),
        joining.joined(Plan(perhaps=True), 9),
    ):
        pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("host:1", 2, None), "missing: --process$"),
        ((None, 2, None), "missing: --coordinator, --process$"),
        (("host", 2, 0), "--coordinator host is not HOST:PORT"),
        (("host:1", 2, 2), "--process 2 of --processes 2: processes are numbered 0 to 1"),
    ],
)
def test_half_a_plan_is_refused(flags: tuple, message: str):
    """Catches a process that waits five minutes for others that cannot come."""
    with pytest.raises(UserError, match=message):
        plan(*flags, {})


class Processes:
    """A command in several processes on this machine, each with its log."""

    def __init__(self, home: Path, workdir: Path, data: Path) -> None:
        self.home, self.workdir, self.data = home, workdir, data
        self.started: list[subprocess.Popen[bytes]] = []

    def start(
        self, count: int, devices: int, *each: list[str], announced: tuple[int, ...] = ()
    ) -> None:
        """Process i with the flags each[i] besides those that all have."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.started = []
        for index in range(count):
            command = [sys.executable, "-m", "electra_jax", "pretrain", "--workdir", self.workdir]
            if not (self.workdir / "config.json").exists():
                values = {
                    "data.path": self.data,
                    "train.steps": STEPS,
                    "train.log_every": 1,
                    "train.eval_every": 1000,
                    "train.eval_batches": 1,
                    "train.checkpoint_every": 1000,
                }
                command += ["--config", "tiny"]
                command += [f"--config.{name}={value}" for name, value in values.items()]
            if count > 1:
                command += ["--coordinator", f"127.0.0.1:{port}", "--process", index]
                command += ["--processes", announced[index] if announced else count]
            command += each[index] if each else []
            environment = os.environ | {
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "JAX_COMPILATION_CACHE_DIR": str(self.home / "cache"),
            }
            with open(self.log(index), "wb") as log:
                words = [str(word) for word in command]
                self.started.append(
                    subprocess.Popen(words, stdout=log, stderr=log, env=environment)
                )

    def log(self, index: int) -> Path:
        return self.home / f"process-{index}.log"

    def said(self, index: int) -> str:
        return self.log(index).read_text(errors="replace")

    def wait(self) -> list[int]:
        """The exit statuses; what still runs after PATIENCE_S is killed."""
        deadline = time.monotonic() + PATIENCE_S
        try:
            return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.started]
        finally:
            for process in self.started:
                process.kill()

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            alive = all(process.poll() is None for process in self.started)
            assert alive and time.monotonic() < deadline, self.said(0) + self.said(1)
            time.sleep(0.01)

    def lines(self) -> list[dict]:
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def trained(self) -> int:
        return max((line["step"] for line in self.lines() if line["split"] == "train"), default=0)


@pytest.fixture
def processes(tmp_path, prepared_folder) -> Processes:
    return Processes(tmp_path, tmp_path / "run", prepared_folder)


@pytest.mark.slow
def test_started_differently(processes):
    """Catches processes that train on different configs, or hang because one waits for a third that nobody
    started: all end with the same words, before a device is used or a file written."""
    for each, announced, expected in (
        ([[], ["--config.train.seed=7"]], (), "config.train.seed: 0 in process 0, 7 in process 1"),
        ([[], []], (2, 3), "processes: 2 in process 0, 3 in process 1"),
    ):
        processes.start(2, 1, *each, announced=announced)
        assert processes.wait() == [2, 2], processes.said(0) + processes.said(1)
        for index in (0, 1):
            assert "error: the processes of this run were started differently" in processes.said(
                index
            )
            assert expected in processes.said(index)
        assert not processes.workdir.exists()


@pytest.mark.slow
def test_who_does_not_come_is_not_waited_for(processes):
    """Catches a process that waits for ever, or aborts in native code, when fewer are started than announced."""
    processes.start(1, 1, ["--coordinator", "127.0.0.1:1", "--process", "0", "--processes", "2"])
    for process in processes.started:
        process.kill()
        process.wait()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--coordinator", f"127.0.0.1:{port}", "--process", "0", "--processes", "2"]
    processes.start(1, 1, [*flags, "--join-timeout", "3"])
    assert processes.wait() == [2], processes.said(0)
    assert "error: not all of 2 processes have come" in processes.said(0)


@pytest.mark.slow
def test_two_processes_then_one(processes, tmp_path):
    """Catches a stop that leaves two processes at different steps, metrics written twice, a survivor that waits
    for the dead, and a checkpoint of two processes that one cannot continue: SIGTERM to one of two, kill -9 of
    one of two, the rest in one process; the lines are those of a run of one process."""
    processes.start(2, 1)
    processes.until(lambda: processes.trained() >= 3)
    processes.started[1].send_signal(signal.SIGTERM)
    assert processes.wait() == [75, 75], processes.said(0) + processes.said(1)
    (stopped,) = checkpoint.Checkpoints(processes.workdir).steps()
    assert 3 <= stopped < STEPS
    assert f"told to leave: stopped after step {stopped}" in processes.said(0)
    assert "stopped after" not in processes.said(1)  # the first one reports
    assert "held-out" not in processes.said(1)

    processes.start(2, 1)
    processes.until(lambda: processes.trained() > stopped)
    processes.started[1].kill()
    killed = time.monotonic()
    assert processes.wait() == [75, -9], processes.said(0)
    print(f"the other one ended {time.monotonic() - killed:.1f} s later, within {HEARTBEAT_S} s")
    assert "error: another process of this run is gone" in processes.said(0)

    processes.start(1, 1)
    assert processes.wait() == [0], processes.said(0)
    alone = Processes(tmp_path, tmp_path / "alone", processes.data)
    alone.start(1, 1)
    assert alone.wait() == [0], alone.said(0)

    ours, theirs = processes.lines(), alone.lines()
    assert [(line["step"], line["split"]) for line in ours] == [
        (line["step"], line["split"]) for line in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        # Shares of whole numbers: masks, samples and what was guessed are the same ones.
        assert a["replaced_fraction"] == b["replaced_fraction"], a["step"]
        for name in ("mlm_loss", "disc_loss"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), (a["step"], name)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, False),
        ({"dev/accel0": ""}, True),
        ({"dev/vfio/3": "", "sys/kernel/iommu_groups/3/devices/0000:00:04.0/vendor": "0x1ae0\n"}, True),
        ({"dev/vfio/3": "", "sys/kernel/iommu_groups/3/devices/0000:00:04.0/vendor": "0x15b3\n"}, False),
        ({"dev/vfio/vfio": ""}, False),
    ],
)  # fmt: skip
def test_chips_are_seen(tmp_path, made, expected):
    """Catches hosts of a newer slice that each train alone, and a network card that is taken for a TPU."""
    for name, content in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert _has_tpu(tmp_path) == expected
