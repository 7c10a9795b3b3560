"""The compiled programs: what they donate, where the cache lies."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from electra_jax.learn import program as programs
from electra_jax.learn.arrays import flatten
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError


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


def test_abstract_state_is_that_of_init(built):
    """Catches a checkpoint or a compiled step made for another tree than training starts with."""
    found = jax.eval_shape(built.init)
    for name, x in flatten(built.abstract_state).items():
        assert (x.shape, x.dtype) == (flatten(found)[name].shape, flatten(found)[name].dtype)
        assert x.dtype in (np.float32, np.int32)
    assert set(flatten(found)) == set(flatten(built.abstract_state))
    assert set(built.abstract_batch) == set(program.FIELDS)


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
