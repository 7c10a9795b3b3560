"""What tests of several platforms' kernels share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import ModelOptions, OptimOptions
from electra_jax.finetune.program import Program, StepSpec
from electra_jax.learn import mesh as meshes
from electra_jax.model.electra import Dimensions
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import tiles
from electra_jax.ops.vocabulary.slots import HeadOptions, Inputs


def fine_tuning_text(devices, runs: int = 0) -> str:
    """A step of one layer, for one run or several in one program, as compiled for these devices."""
    encoder = ModelOptions(
        layers=1,
        width=256,
        heads=4,
        ffn=1024,
        embedding=128,
        positions=512,
        types=2,
        init_std=0.02,
        dropout=0.1,
        attention_dropout=0.1,
        dtype="bfloat16",
        residual_dtype="float32",
        remat="none",
    )
    head = HeadSpec(
        kind="classify", style="hf", outputs=2, dropout=0.1, init_std=0.02, dtype="bfloat16"
    )
    optim = OptimOptions(
        name="adam",
        peak_lr=None,
        layer_decay=None,
        layer_decay_off_by_one=False,
        warmup=0.1,
        lr_power=1.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-6,
        weight_decay=0.0,
        clip_norm=1.0,
        frozen_layers=0,
    )
    network = NetworkSpec(dims=Dimensions(encoder.random(), 500), heads=(("task", head),))
    spec = StepSpec(network=network, optim=optim, layer_decay=0.8, reduction="mean", steps=100)
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


def check_heads(kernels, options: HeadOptions, hidden, table, bias) -> None:
    """That an interpreted vocabulary head gives what the tiles do, gradients as well: ids exactly, the rest to 1e-5."""
    draw = np.random.default_rng(1)
    cotangent = draw.normal(size=hidden.shape[:2]).astype(np.float32)
    targets = draw.integers(0, options.vocab_size, cotangent.shape).astype(np.int32)
    noise = noise_ops.for_rows(jax.random.key(9), jnp.arange(len(hidden)) + 5)

    def run(head):
        def loss(*arrays):
            out = head(Inputs(*arrays, targets, noise), options=options)
            return jnp.sum(out.loss * cotangent), out

        arrays = [jnp.asarray(x, jnp.float32) for x in (hidden, table, bias)]
        grads, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
        return (*out, *grads)

    interpreted = functools.partial(kernels.run, interpret=True)
    for actual, expected in zip(run(interpreted), run(tiles.run), strict=True):
        if actual.dtype == jnp.int32:
            assert np.array_equal(actual, expected)
        else:
            assert np.abs(actual - expected).max() < 1e-5


@pytest.fixture
def same_as_tiles():
    """`check_heads`."""
    return check_heads
