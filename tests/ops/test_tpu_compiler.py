"""The kernels compiled by a TPU's own compiler, which rejects much that interpretation does."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from electra_jax.ops import attention_kernel, vocab_kernel
from electra_jax.ops.noise import Noise
from electra_jax.ops.vocab_tiles import HeadOptions
from electra_jax.plan import topology

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


@pytest.mark.parametrize("slice", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_kernels_compile(slice):
    """Catches an operation the TPU does not have, a layout it refuses, and more memory than its core has."""
    keys = ((4,), jnp.uint32)

    def attend(qkv, bias, docs, low, high):
        noise = Noise(low, high)
        out = attention_kernel.self_attention(qkv, bias, docs, noise, width // 64, 0.1)
        return jnp.sum(out.astype(jnp.float32))

    for length, width in ((128, 64), (128, 256), (512, 768)):
        arrays = ((4, length, 3 * width), jnp.bfloat16), ((3 * width,), jnp.float32)
        text = compiled(slice, attend, *arrays, ((4, length), jnp.int32), keys, keys)
        assert text.count('custom_call_target="tpu_custom_call"') == 2

    def head(hidden, table, bias, targets, low, high):
        options = HeadOptions(30522, 1.0, False, 0)
        out = vocab_kernel.kernel_head(hidden, table, bias, targets, Noise(low, high), options)
        return jnp.sum(out.loss)

    if slice.startswith("v4"):
        return  # whose core has no room for the hidden states of many slots
    shapes = (((4, 300, 768), jnp.bfloat16), ((30592, 768), jnp.float32), ((30592,), jnp.float32))
    text = compiled(slice, head, *shapes, ((4, 300), jnp.int32), keys, keys)
    assert text.count('custom_call_target="tpu_custom_call"') == 2
