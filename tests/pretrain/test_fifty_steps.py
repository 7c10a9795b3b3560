"""Fifty steps on one device, on several, and on several processes: the same batches, masks, noise and samples."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "fifty_steps.py"
PATIENCE_S = 900.0
# Nine programs that run fifty times: most of the time goes to LLVM, which knows nothing of devices and rows.
HASTE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# One model for all: every size divides by 8; dropout is on, and so is the learning rate from the first step.
OVERRIDES = (
    "model.layers=1",
    "model.width=16",
    "model.ffn=32",
    "model.embedding=8",
    "model.positions=32",
    "train.batch=16",
    "optim.warmup=0",
)
# name: (data, fsdp, compute dtype, slices), in one process of eight devices
MESHES = {
    "1": (1, 1, "float32", 1),
    "4": (4, 1, "float32", 1),
    "8": (8, 1, "float32", 1),
    "4x2": (4, 2, "float32", 1),
    "4x2 on 2 slices": (4, 2, "float32", 2),
    "1-bf16": (1, 1, "bfloat16", 1),
    "8-bf16": (8, 1, "bfloat16", 1),
}
DRAWN = ("seen/ids", "seen/masked", "seen/dropout", "masked", "valid")
COUNTS = ("replaced", "sampled_correct", "mlm_correct")
LOSSES = ("mlm_loss", "disc_loss", "entropy", "step/total_loss", "step/grad_norm")


def start(told: dict, devices: int, cache: Path) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {HASTE}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    command = [sys.executable, str(SCRIPT), json.dumps(told)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prepared_folder) -> dict[str, dict[str, np.ndarray]]:
    """What every mesh, and every number of processes, gave."""
    home = tmp_path_factory.mktemp("fifty")
    common = {"data": str(prepared_folder), "output": str(home), "overrides": OVERRIDES}
    several = {"2 of 2": 2, "4 of 1": 4}  # four devices in all, as in "4"
    groups = [[start(common | {"meshes": MESHES}, 8, home / "cache")]]
    for name, count in several.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        told = common | {
            "meshes": {name: (4, 1, "float32", 1)},
            "coordinator": coordinator,
            "processes": count,
        }
        finish(groups[-1])  # one after another: a machine has few cores
        groups.append(
            [start(told | {"process": i}, 4 // count, home / "cache") for i in range(count)]
        )
    finish(groups[-1])
    return {name: dict(np.load(home / f"{name}.npz")) for name in [*MESHES, *several]}


def finish(processes: list[subprocess.Popen]) -> None:
    try:
        for process in processes:
            _, said = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("name", ["4", "8", "4x2", "2 of 2", "4 of 1"])
def test_devices_and_processes_change_nothing_that_is_drawn(runs, name: str):
    """Catches batches, masks, samples or dropout that depend on where a row is computed, rows read by the wrong
    process, means over a shard, and a gradient summed twice: equal to the last bit, losses to rounding."""
    one, other = runs["1"], runs[name]
    for key in DRAWN:
        assert len(one[key]) == 50
        assert np.array_equal(one[key], other[key]), key
    assert np.array_equal(one["seen/sampled"], other["seen/sampled"])
    for key in COUNTS:
        assert np.array_equal(one[key], other[key]), key
    worst = {k: float(np.max(np.abs(other[k] / one[k] - 1))) for k in LOSSES}
    print(name, worst)
    assert max(worst.values()) < 1e-5, worst


def test_processes_change_nothing_at_all(runs):
    """Catches a sum that is ordered by process: four devices give the same bits however they are spread."""
    for name in ("2 of 2", "4 of 1"):
        worst = max(float(np.max(np.abs(runs[name][k] / runs["4"][k] - 1))) for k in LOSSES)
        print(name, worst)
        assert worst < 1e-5


def test_slices_change_nothing_at_all(runs):
    """Catches rows or parameters that follow the number of a device and not its place in the mesh: where devices of
    two slices are mixed, every loss is that of the same mesh on one slice, to the last bit."""
    one, two = runs["4x2"], runs["4x2 on 2 slices"]
    assert set(one) == set(two)
    for key in one:
        assert np.array_equal(one[key], two[key]), key


def test_bfloat16_differs_in_few_samples(runs):
    """Catches noise in the compute dtype, whose ties fall differently on every mesh."""
    one, eight = runs["1-bf16"], runs["8-bf16"]
    for key in DRAWN:
        assert np.array_equal(one[key], eight[key]), key
        assert np.array_equal(one[key], runs["1"][key]), key
    share = np.sum(one["seen/sampled"] != eight["seen/sampled"]) / np.sum(one["masked"])
    print(f"share of samples that differ: {share:.5f}")
    assert share < 0.005
