"""The compiled programs: what they donate, where the cache lies."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from electra_jax.learn import program as programs
from electra_jax.learn.arrays import flatten
from electra_jax.pretrain import loop, program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError
from electra_jax.workdir import imported


@pytest.fixture(scope="module")
def built(config, prepared):
    run = run_spec(config().to_dict())
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    return program.build(run, run.phases(prepared)[0], one)


def test_the_state_is_donated_and_nothing_else(built):
    """Catches a step that holds two copies of parameters and moments."""
    lowered = built.train_step.lower(built.abstract_state, built.abstract_batch)
    (state, batch), _ = lowered.args_info
    assert all(x.donated for x in jax.tree.leaves(state))
    assert not any(x.donated for x in jax.tree.leaves(batch))


def test_the_abstract_step_is_that_of_a_run(built, prepared):
    """Catches a checkpoint or a compiled step made for another tree, placement or batch than training has."""

    def described(tree):
        return {
            name: (x.shape, x.dtype, x.sharding, x.weak_type) for name, x in flatten(tree).items()
        }

    state = built.init()
    assert described(state) == described(built.abstract_state)
    rows = prepared.source("train").rows(np.arange(8))
    batch = {name: jax.device_put(x, built.batch_sharding) for name, x in rows.items()}
    assert described(batch) == described(built.abstract_batch)
    after, _ = built.train_step(state, batch)
    assert described(after) == described(built.abstract_state)


def test_an_import_that_does_not_fit_is_one_line(built, tmp_path):
    """Catches weights placed unchecked: a traceback from the depths of JAX, or training from half of a model."""
    shapes = flatten(built.abstract_state["params"])
    params = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    dims, source = built.objective.dims, {"folders": []}
    start = SimpleNamespace(folder=tmp_path)
    nothing = SimpleNamespace(restore=lambda _: None)
    moments = {"mu": params, "nu": {name: x for name, x in params.items() if "bias" not in name}}
    imported.write(tmp_path, dims, "electra", params, source)
    assert loop.initial_state(start, built, nothing)[0] == 0
    imported.write(tmp_path, dims, "electra", params, source, moments=moments, step=3)
    with pytest.raises(UserError, match="^the imported moments nu do not fit .*; and [0-9]+ more"):
        loop.initial_state(start, built, nothing)
    params["discriminator_head/out/bias"] = np.zeros(7, np.float32)
    imported.write(tmp_path, dims, "electra", params, source)
    with pytest.raises(UserError) as error:
        loop.initial_state(start, built, nothing)
    assert str(error.value) == (
        "the imported parameters do not fit the model of this run: discriminator_head/out/bias: expected float32[1], "
        "the import (imported/params.safetensors) has float32[7]; import into a new workdir"
    )


def test_an_average_is_carried_beside_the_same_state(built, config, prepared):
    """Catches an average in the state of a run that asks for none, or one of other shapes than the weights."""
    assert built.abstract_state["carried"] == {}
    run = run_spec(config("train.average=0.99").to_dict())
    averaged = program.build(run, run.phases(prepared)[0], built.mesh)
    state = flatten(averaged.abstract_state)
    carried = {name for name in state if name.startswith("carried/")}
    assert {n.removeprefix("carried/average/") for n in carried} == set(
        flatten(built.abstract_state["params"])
    )
    assert state.keys() - carried == flatten(built.abstract_state).keys()
    values = {
        name: np.zeros(x.shape, np.float32)
        for name, x in flatten(averaged.abstract_state["params"]).items()
    }
    placed = averaged.place("params", values)
    assert jax.tree.structure(placed) == jax.tree.structure(averaged.abstract_state["params"])
    with pytest.raises(UserError, match=r"carried do not fit the model:\n  average/"):
        averaged.place("carried", {})


def test_placing_is_a_transfer_by_name(built):
    """Catches numbers that reach the device implicitly, which the loop forbids."""
    with jax.transfer_guard("disallow"):
        assert int(jax.device_get(built.scalar(41))) == 41


def test_the_deterministic_option_is_one_that_xla_knows():
    """Catches an option renamed in XLA, which a GPU run would find out first."""
    double = jax.jit(lambda x: x * 2, compiler_options=programs.DETERMINISTIC)
    assert double(np.float32(3)) == 6


def test_compilation_cache(tmp_path, monkeypatch):
    """Catches a cache that ignores the user's folder, overrides what they chose, or leaves small programs out."""
    config = jax.config
    before = config.jax_compilation_cache_dir, config.jax_persistent_cache_min_compile_time_secs
    try:
        config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        programs.use_compilation_cache()
        assert config.jax_compilation_cache_dir == str(tmp_path / "electra_jax" / "xla")
        assert config.jax_persistent_cache_min_compile_time_secs == 0
        config.update("jax_compilation_cache_dir", "elsewhere")
        config.update("jax_persistent_cache_min_compile_time_secs", 2.0)
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "2")
        programs.use_compilation_cache()
        assert config.jax_compilation_cache_dir == "elsewhere"
        assert config.jax_persistent_cache_min_compile_time_secs == 2
    finally:
        config.update("jax_compilation_cache_dir", before[0])
        config.update("jax_persistent_cache_min_compile_time_secs", before[1])
