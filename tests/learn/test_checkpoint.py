"""Checkpoints: what is saved comes back bit for bit, and what is broken is never trained on."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from electra_jax.learn import arrays, checkpoint, content
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.spec import UserError
from electra_jax.workdir.lock import lock


def make_state(seed=0):
    """Two dtypes, a scalar, a tuple, an empty branch: the shapes a train state takes."""
    key = jax.random.key(seed)
    kernel = jax.random.normal(key, (256, 96))
    return {
        "step": jnp.int32(seed),
        "params": {"layer": {"kernel": kernel, "bias": jnp.arange(96.0)}},
        "opt_state": ({"mu": kernel.astype(jnp.bfloat16)}, ()),
        "carried": {},
    }


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def save_two(workdir):
    with Checkpoints(workdir, keep_last=5) as saved:
        for step in (1, 2):
            saved.save(step, make_state(step), {"name": step})


def test_round_trip_keeps_every_bit_and_the_newest_and_every_nth(tmp_path):
    """Catches a save that races with the donation of its state, and a wrong keep policy."""
    advance = jax.jit(
        lambda s: jax.tree.map(lambda x: x * 2 + jnp.ones((), x.dtype), s), donate_argnums=0
    )
    state, copies = make_state(), {}
    with Checkpoints(tmp_path, keep_last=2, keep_every=3) as saved:
        assert saved.restore(abstract(state)) is None
        for step in range(1, 8):
            copies[step] = jax.tree.map(lambda x: np.array(x, copy=True), state)
            saved.save(step, state, {"step": step, "nested": {"a": [1, None]}})
            state = advance(state)
        saved.wait()
        assert saved.steps() == [3, 6, 7]
    with Checkpoints(tmp_path) as saved:
        for step in (3, 6, 7):
            found, back, meta = saved.restore(abstract(state), step)
            assert found == step and meta == {"step": step, "nested": {"a": [1, None]}}
            assert same(copies[step], back)


def test_restored_arrays_can_be_donated(tmp_path, recwarn):
    """Catches a resumed run whose first step holds the state twice."""
    save_two(tmp_path)
    with Checkpoints(tmp_path) as saved:
        _, state, _ = saved.restore(abstract(make_state()))
    jax.block_until_ready(jax.jit(lambda s: jax.tree.map(jnp.negative, s), donate_argnums=0)(state))
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not [w for w in recwarn if "donated" in str(w.message)]


def test_restores_onto_the_asked_shardings(tmp_path):
    """Catches a restore that ignores the mesh (everything whole on device 0), or needs the one it was saved on."""

    def placed(devices):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        rows, whole = (
            NamedSharding(mesh, PartitionSpec("data")),
            NamedSharding(mesh, PartitionSpec()),
        )
        return jax.tree.map(lambda x: rows if x.ndim == 2 else whole, make_state())

    state = jax.device_put(make_state(1), placed(8))
    with Checkpoints(tmp_path) as saved:
        saved.save(1, state, {})
    for devices in (8, 2, 1):
        shardings = placed(devices)
        like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
        )
        with Checkpoints(tmp_path) as saved:
            _, back, _ = saved.restore(like)
        assert jax.tree.map(lambda x: x.sharding, back) == shardings
        assert back["params"]["layer"]["kernel"].addressable_shards[0].data.shape == (
            256 // devices,
            96,
        )
        assert same(state, back)


def stored_files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def damages(folder):
    """Name and action for every way a file of the arrays or of meta is lost or cut."""
    for path in stored_files(folder):
        name = path.relative_to(folder).as_posix()
        if name.startswith("meta/m") or "/d/" in name:
            yield f"remove {name}", path.unlink
            yield f"empty {name}", lambda p=path: p.write_bytes(b"")
            yield (
                f"halve {name}",
                lambda p=path: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
            )


def test_every_damage_is_named_and_passed_over_for_an_older_checkpoint(tmp_path, capfd):
    """Catches a cut or missing file that is restored as zeros, as an old value, or with a traceback."""
    save_two(tmp_path)
    good = tmp_path / "checkpoints"
    used = 0
    for i, (name, _) in enumerate(list(damages(good / "2"))):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(good, copy / "checkpoints")
        dict(damages(copy / "checkpoints" / "2"))[name]()
        with Checkpoints(copy) as saved:
            step, state, _ = saved.restore(abstract(make_state()))
        assert same(state, make_state(step)), name
        noise = capfd.readouterr().err
        if step == 1:
            used += 1
            assert noise.count("\n") == 1 and noise.startswith("warning: checkpoint"), (name, noise)
            assert "copy" in noise and "/2 is damaged" in noise
        else:  # bytes that Orbax wrote twice: nothing was lost
            assert not noise, (name, noise)
    assert used >= 6


def test_flipped_bits_are_found(tmp_path, capfd):
    """Catches a restore that trusts the bytes: one flipped bit anywhere in the largest file."""
    save_two(tmp_path)
    largest = max(
        stored_files(tmp_path / "checkpoints" / "2" / "state"), key=lambda p: p.stat().st_size
    )
    whole, found = largest.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(whole), 12):
        data = bytearray(whole)
        data[place] ^= 1 << int(place % 8)
        largest.write_bytes(bytes(data))
        with Checkpoints(tmp_path) as saved:
            step, state, _ = saved.restore(abstract(make_state()))
        assert same(state, make_state(step))
        told = capfd.readouterr().err
        assert (told.count("\n") == 1 and "/2 is damaged" in told) if step == 1 else not told
        found += step == 1
    assert found
    with Checkpoints(tmp_path) as saved, pytest.raises(UserError, match="is damaged"):
        saved.restore(abstract(make_state()), 2)


def test_half_deleted_checkpoint_and_saving_its_step_again(tmp_path, capfd):
    """Catches a resume that cannot save because the damaged folder has the name of the next save."""
    save_two(tmp_path)
    (tmp_path / "checkpoints" / "2" / "meta" / "metadata").unlink()
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path, keep_last=5) as saved:
        step, _, _ = saved.restore(abstract(make_state()))
        assert step == 1 and saved.steps() == [1, 2]  # reading changes nothing
        saved.save(2, make_state(22), {})
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "2.damaged"]
    with Checkpoints(tmp_path) as saved:
        assert same(saved.restore(abstract(make_state()))[1], make_state(22))


def test_nothing_good_is_left(tmp_path, capfd):
    """Catches an endless search or a crash when every checkpoint is damaged."""
    save_two(tmp_path)
    for step in "12":
        (tmp_path / "checkpoints" / step / "meta" / "metadata").write_text("{")
    with Checkpoints(tmp_path) as saved:
        assert saved.restore(abstract(make_state())) is None
    assert capfd.readouterr().err.count("damaged") == 2
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        checkpoint.read_params(tmp_path)


def test_another_tree_is_refused_with_every_difference(tmp_path):
    """Catches a restore that fills holes silently, or takes another model for a damaged file."""
    save_two(tmp_path)
    state = make_state()
    del state["params"]["layer"]["bias"]
    state["params"]["layer"]["kernel"] = jnp.zeros((256, 64))
    state["params"]["layer"]["scale"] = jnp.zeros(3)
    state["step"] = jnp.float32(0)
    with Checkpoints(tmp_path) as saved, pytest.raises(UserError) as told:
        saved.restore(abstract(state))
    for line in (
        "params/layer/bias: only in the checkpoint",
        "params/layer/scale: not in the checkpoint",
        "params/layer/kernel: expected float32[256, 64], the checkpoint has float32[256, 96]",
        "step: expected float32[], the checkpoint has int32[]",
    ):
        assert line in str(told.value)
    assert saved.steps() == [1, 2]


def test_foreign_folders_are_refused(tmp_path):
    """Catches training beside, or garbage-collecting, files that belong to somebody else."""
    (tmp_path / "a" / "checkpoints" / "my-backup").mkdir(parents=True)
    with pytest.raises(UserError, match="my-backup is no checkpoint of this program"):
        Checkpoints(tmp_path / "a")
    foreign = tmp_path / "b" / "checkpoints" / "500"
    foreign.mkdir(parents=True)
    (foreign / "pytorch_model.bin").write_bytes(b"x")
    with Checkpoints(tmp_path / "b") as saved, pytest.raises(UserError, match="pytorch_model.bin"):
        saved.restore(abstract(make_state()))
    save_two(tmp_path / "c")
    (tmp_path / "c" / "checkpoints" / "2" / "meta" / "metadata").write_text(json.dumps({"x": 1}))
    with Checkpoints(tmp_path / "c") as saved, pytest.raises(UserError, match="format None"):
        saved.restore(abstract(make_state()))


def test_read_params_needs_no_mesh_and_falls_back(tmp_path, capfd):
    """Catches an export of the wrong step, of device arrays, or of a damaged checkpoint."""
    save_two(tmp_path)
    step, params, meta = checkpoint.read_params(tmp_path)
    assert step == 2 and meta == {"name": 2} and same(params, make_state(2)["params"])
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(params))
    assert checkpoint.read_params(tmp_path, 1)[2] == {"name": 1}
    with pytest.raises(UserError, match=r"no checkpoint of step 7; it has: 1, 2"):
        checkpoint.read_params(tmp_path, 7)
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.read_params(tmp_path / "nowhere")
    (tmp_path / "checkpoints" / "2" / "state" / "manifest.ocdbt").unlink()
    assert checkpoint.read_params(tmp_path)[0] == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_checksum_sees_flips_and_swaps_and_agrees_with_numpy(dtype):
    """Catches a checksum that ignores order or high bits, or differs between device and host."""
    rng = np.random.default_rng(0)
    x = np.asarray(jnp.asarray(rng.integers(0, 2, (5, 6, 7))).astype(dtype))
    expected = arrays.checksum_numpy(x)
    assert int(arrays.checksum(jnp.asarray(x))) == expected
    swapped = x.copy()
    a, b = np.argwhere(x == 1)[0], np.argwhere(x == 0)[0]
    swapped[tuple(a)], swapped[tuple(b)] = x[tuple(b)], x[tuple(a)]
    assert arrays.checksum_numpy(swapped) != expected
    raw = bytearray(x.tobytes())
    for bit in range(8 * x.dtype.itemsize):
        flipped = bytearray(raw)
        flipped[-1 - bit // 8] ^= 1 << (bit % 8)
        assert (
            arrays.checksum_numpy(np.frombuffer(bytes(flipped), x.dtype).reshape(x.shape))
            != expected
        )


def test_full_disk_is_one_clear_error_and_keeps_what_was_saved(tmp_path):
    """Catches a full disk that ends in a traceback, passes unnoticed, or costs the older checkpoint."""
    # A limit on file size stands in for the full disk: it fails in the same write calls, without a mount.
    code = """
        import resource, signal, sys
        import jax, jax.numpy as jnp
        from electra_jax.spec import UserError
        from electra_jax.learn.checkpoint import Checkpoints
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        big = {"x": jax.random.normal(jax.random.key(0), (512, 1024))}
        try:
            with Checkpoints(sys.argv[1], keep_last=5) as saved:
                saved.save(1, {"x": jnp.zeros((512, 1024))}, {})
                saved.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                saved.save(2, big, {})  # fails behind: told at the end
        except UserError as error:
            print("told:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.startswith("told: cannot write") and done.stdout.count("\n") == 1, done
    assert done.stderr == "" and done.returncode == 0
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["1"]
    like = {"x": jax.ShapeDtypeStruct((512, 1024), jnp.float32, sharding=jnp.ones(1).sharding)}
    with Checkpoints(tmp_path) as saved:
        assert saved.restore(like)[0] == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']", errno.ENOSPC),
        ("Failed to write [OS error 122: EDQUOT Disk quota exceeded]", errno.EDQUOT),
        ("something else", None),
    ],
)
def test_disk_faults_are_read_from_the_library_text(text, number):
    """Catches a full disk reported as a bug because the library hides the error number in its text."""
    assert checkpoint._errno(ValueError(text)) == number


def test_lock_refuses_the_second_and_outlives_no_process(tmp_path):
    """Catches two runs writing one workdir, and a workdir locked for ever after kill -9."""
    code = f"""
import sys, time
from electra_jax.workdir.lock import lock
with lock({str(tmp_path)!r}):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {other.pid} on "), lock(tmp_path):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        other.stdout.close()
    with lock(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()}"), lock(tmp_path):
        pass
    assert Path(tmp_path, ".lock").exists()


def test_a_link_to_a_checkpoint_is_read_and_kept(tmp_path, capfd):
    """Catches rotation that fails at a link, or removes what it leads to; and a dangling one taken for a stranger."""
    save_two(tmp_path / "other")
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "2").symlink_to(tmp_path / "other" / "checkpoints" / "2")
    with Checkpoints(tmp_path / "run", keep_last=1) as saved:
        assert saved.restore(abstract(make_state()))[0] == 2
        for step in (3, 4, 5):
            saved.save(step, make_state(step), {})
    assert sorted(p.name for p in folder.iterdir()) == ["2", "5"]
    assert checkpoint.read_params(tmp_path / "other")[0] == 2
    shutil.rmtree(tmp_path / "other" / "checkpoints" / "2")
    with pytest.raises(UserError, match="checkpoints/2 is a link to .*, where nothing is"):
        Checkpoints(tmp_path / "run")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "checkpoints").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match="checkpoints is a link to .*unmounted, where nothing is"):
        Checkpoints(tmp_path / "lost")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "checkpoints").symlink_to(folder)
    (folder / "2").unlink()
    assert Checkpoints(tmp_path / "moved").steps() == [5]  # the folder itself may lie elsewhere


def test_reading_beside_a_run_that_rotates(tmp_path, capfd, monkeypatch):
    """Catches an export that calls a checkpoint damaged, and gives up, because its run goes on and removed it."""
    save_two(tmp_path)
    folder = tmp_path / "checkpoints"
    read = content._read_array

    def rotated(at, path):
        if at.name == "2" and at.exists():  # in the middle of it, the run saves 3 and keeps one
            shutil.copytree(at, folder / "3")
            shutil.rmtree(folder / "1", ignore_errors=True)
            shutil.rmtree(at)
        return read(at, path)

    monkeypatch.setattr(content, "_read_array", rotated)
    step, params, _ = checkpoint.read_params(tmp_path)
    assert step == 3 and same(params, make_state(2)["params"])
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "checkpoints/2 was removed while it was read, its run goes on; taking the newest" in said
    (folder / "3").rename(folder / "2")
    with pytest.raises(UserError, match=r"2 was removed while it was read; it has: 3"):
        checkpoint.read_params(tmp_path, 2)


@pytest.mark.parametrize("earlier", [{"extra": {}}, {}])
def test_a_checkpoint_of_an_earlier_version(tmp_path, earlier):
    """Catches a run of an earlier version that ends in a traceback of Orbax: where nothing is carried, the state had
    an empty part of another name, or none."""
    state = make_state()
    saved = {name: tree for name, tree in state.items() if name != "carried"} | earlier
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved, {})
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    found = Checkpoints(tmp_path).restore(abstract)
    assert found is not None and set(found[1]) == set(state) and found[1]["carried"] == {}
    for x, y in zip(jax.tree.leaves(found[1]), jax.tree.leaves(state), strict=True):
        assert np.array_equal(x, y)
