"""Kernels, and a step around them, compiled by a TPU's own compiler, which rejects much that interpretation does."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from electra_jax.bench.synthetic import synthetic
from electra_jax.learn import mesh as meshes
from electra_jax.objective.corrupt import slot_count
from electra_jax.ops.attention import inputs as attention
from electra_jax.ops.attention import tpu as attention_kernel
from electra_jax.ops.noise import Noise
from electra_jax.ops.vocabulary import tpu as vocab_kernel
from electra_jax.ops.vocabulary.slots import HeadOptions, Inputs
from electra_jax.plan import topology
from electra_jax.plan.step import compile_step, settle
from electra_jax.plan.stretches import described
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="no TPU compiler; pip install -e '.[test-tpu]'",
    ),
]


def compiled(slice: str, function, *shapes: tuple) -> str:
    """The text of function and its gradient by the first arguments, compiled for one chip."""
    device = topology.devices(topology.parse(slice))[0]
    mesh = jax.make_mesh((1,), ("data",), devices=[device])
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = [jax.ShapeDtypeStruct(*shape, sharding=whole) for shape in shapes]

    def traced(*arrays):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(function, argnums=(0, 1))(*arrays)

    return jax.jit(traced).lower(*arguments).compile().as_text()


@pytest.mark.parametrize("slice", ["v5e:2x2", "v6e:2x2"])
def test_kernels_compile(slice):
    """Catches an operation the TPU does not have, a layout it refuses, and more memory than its core has."""
    keys = ((4,), jnp.uint32)

    def attend(qkv, bias, docs, low, high):
        inputs = attention.Inputs(qkv, bias, attention.Mask(docs), Noise(low, high))
        out = attention_kernel.run(inputs, heads=width // 64, dropout=0.1)
        return jnp.sum(out.astype(jnp.float32))

    for length, width in ((128, 64), (128, 256), (512, 768)):
        arrays = ((4, length, 3 * width), jnp.bfloat16), ((3 * width,), jnp.float32)
        text = compiled(slice, attend, *arrays, ((4, length), jnp.int32), keys, keys)
        assert text.count('custom_call_target="tpu_custom_call"') == 2

    def head(hidden, table, bias, targets, low, high):
        options = HeadOptions(vocab_size=30522, tile=2048)
        inputs = Inputs(hidden, table, bias, targets, Noise(low, high))
        out = vocab_kernel.run(inputs, options=options)
        return jnp.sum(out.loss)

    shapes = (((4, 300, 768), jnp.bfloat16), ((30592, 768), jnp.float32), ((30592,), jnp.float32))
    text = compiled(slice, head, *shapes, ((4, 300), jnp.int32), keys, keys)
    assert text.count('custom_call_target="tpu_custom_call"') == 2


def test_fresh_parameters_compile():
    """Catches an option meant for a GPU that the TPU's compiler refuses."""
    run = run_spec(load_config("tiny", ["train.batch=8"]).to_dict())
    (phase,) = run.phases(synthetic(64, 250))
    chips = meshes.build(run.mesh, topology.devices(topology.parse("v5e:2x4")))
    assert program.build(run, phase, chips).init.lower().compile() is not None


def test_the_step_has_its_kernels_and_no_large_array():
    """Catches kernels that the partitioner takes apart or that no longer fit, activations that are gathered, gradients
    added up more than once, and an array of all logits or all attention weights in main memory."""
    batch, length, vocab = 256, 128, 30_592
    run = run_spec(load_config("small", ["model.layers=1", f"train.batch={batch}"]).to_dict())
    data = described("small", "", length, 30_522)
    chips = topology.devices(topology.parse("v5e:2x4"))
    weighed = compile_step(settle(run, data, chips, None), data, chips).weighed
    # Forward and backward: the generator's attention, the discriminator's, the vocabulary head.
    assert sum(k.runs for k in weighed.kernels) == 6
    assert all(k.flops > 0 for k in weighed.kernels)
    kinds = {c.kind for c in weighed.collectives}
    assert kinds == {"all-reduce"}
    table = vocab * 128 * 4
    reduced = sum(c.bytes for c in weighed.collectives)
    assert reduced < 2.5 * table + 20e6, f"{reduced / 1e6:.1f} MB are added up"
    logits = batch // len(chips) * slot_count(0.15, length) * vocab * 2  # bfloat16
    weights = batch // len(chips) * 4 * length * length * 4
    for buffer in weighed.buffers:
        assert buffer.bytes < logits, buffer
    largest = max(b.bytes for b in weighed.buffers if "[30592,128]" not in b.array)
    assert largest <= 2 * weights, weighed.buffers[:3]


def test_fine_tuning_has_the_kernels(fine_tuning):
    """Catches a fine-tuning step that does not say what it runs on, and so falls back on plain attention."""
    text = fine_tuning(topology.devices(topology.parse("v5e:2x4")))
    assert text.count('custom_call_target="tpu_custom_call"') == 2
