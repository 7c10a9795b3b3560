"""What tests of several platforms' kernels share."""

import jax
import jax.numpy as jnp
import pytest

from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import EncoderSpec, OptimOptions
from electra_jax.finetune.program import Program, StepSpec
from electra_jax.model.electra import Dimensions
from electra_jax.train import mesh as meshes


def fine_tuning_text(devices, runs: int = 0) -> str:
    """A step of one layer, for one run or several in one program, as compiled for these devices."""
    encoder = EncoderSpec(
        1, 256, 4, 1024, 128, 512, 2, 0.02, 0.1, 0.1, "bfloat16", "float32", "none"
    )
    head = HeadSpec("classify", "hf", 2, 0.1, 0.02, "bfloat16")
    optim = OptimOptions("adam", None, None, False, 0.1, 1.0, 0.9, 0.999, 1e-6, 0.0, 1.0, 0)
    network = NetworkSpec(Dimensions(encoder.random(), 500), (("task", head),))
    spec = StepSpec(network, optim, 0.8, "mean", 100)
    program = Program(spec, meshes.build(meshes.MeshSpec(-1, 1), devices), runs)
    lead = (runs,) if runs else ()
    split = jax.sharding.PartitionSpec(*[None] * len(lead), *meshes.ROWS)
    rows = jax.sharding.NamedSharding(program.mesh, split)
    batch = {
        name: jax.ShapeDtypeStruct((*lead, 32, *shape), dtype, sharding=rows)
        for name, shape, dtype in (
            ("ids", (128,), jnp.int32),
            ("types", (128,), jnp.int32),
            ("docs", (128,), jnp.int32),
            ("label", (), jnp.int32),
            ("weight", (), jnp.float32),
        )
    }
    return program.jitted_step("task").lower(program.abstract_state, batch).compile().as_text()


@pytest.fixture
def fine_tuning():
    """`fine_tuning_text`."""
    return fine_tuning_text
