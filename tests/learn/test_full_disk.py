"""A disk that is really full: a file system in memory of a few pages, where we may mount one."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.convert import folder
from electra_jax.data.prepare import build
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.spec import UserError


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_saving(disk, capfd):
    """Catches a full disk that costs the checkpoint before, leaves half of one, or ends in a traceback."""
    small = {"x": jnp.arange(1000.0)}
    with pytest.raises(UserError, match="the disk is full"), Checkpoints(disk, 5) as saved:
        saved.save(1, small, {})
        saved.wait()
        # Random bits do not compress.
        bits = jax.random.bits(jax.random.key(0), (500_000,), jnp.uint32)
        saved.save(2, {"x": bits}, {})
    assert [p.name for p in (disk / "checkpoints").iterdir()] == ["1"]
    like = {"x": jax.ShapeDtypeStruct((1000,), jnp.float32, sharding=small["x"].sharding)}
    with Checkpoints(disk) as saved:
        step, state, _ = saved.restore(like)
    assert step == 1
    assert np.array_equal(state["x"], small["x"])


def test_preparing(disk, tmp_path):
    """Catches shards that end in the middle under the name of the whole."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(2000)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, *sorted(set(words))]) + "\n")
    documents = (" ".join(draw.choices(words, k=300)) for _ in range(1500))
    (tmp_path / "text.txt").write_text("\n\n".join(documents) + "\n")
    with pytest.raises(UserError, match="No space left on device"):
        build.prepare(
            [str(tmp_path / "text.txt")], tmp_path / "vocab.txt", 64, disk / "rows", workers=1
        )
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("free", [8, 24, 100, 200])
def test_saving_many_arrays_is_one_line(disk, capfd, free):
    """Catches hundreds of lines of libraries about the other files of a save whose first error was told."""
    state = {f"x{i}": jax.random.bits(jax.random.key(i), (1000,), jnp.uint32) for i in range(90)}
    space = os.statvfs(disk)
    (disk / "fill").write_bytes(b"x" * (space.f_bavail * space.f_bsize - free * 1024))
    with pytest.raises(UserError, match="the disk is full"), Checkpoints(disk) as saved:
        saved.save(1, state, {})
    time.sleep(0.2)  # for those who speak late
    assert capfd.readouterr().err == ""
    assert list((disk / "checkpoints").iterdir()) == []


def test_writing_a_model(disk):
    """Catches a traceback of safetensors, whose errors are not those of the operating system."""
    tensors = {"x": np.ones(200_000, np.float32)}
    with pytest.raises(UserError, match="model.safetensors: the disk is full"):
        folder.write_tensors(disk / "model.safetensors", tensors, {})
    assert list(disk.iterdir()) == []
