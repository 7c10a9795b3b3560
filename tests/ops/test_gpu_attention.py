"""The GPU's attention kernels, interpreted, against attention in plain array functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import machine
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention import Mask, Rotation, self_attention
from electra_jax.ops.attention import hopper as kernels
from electra_jax.ops.attention.inputs import Inputs

B, H, C = 3, 2, 16
NOISE = noise_ops.for_rows(jax.random.key(7), jnp.arange(5, 5 + B))


def gradients(function, length: int, dtype: str = "float32", noise=None):
    """Output of `function` [B, L, D] and its gradients for queries, keys and values, and for their bias; float64."""
    keys = jax.random.split(jax.random.key(length), 4)
    qkv = 2 * jax.random.normal(keys[0], (B, length, 3 * H * C))
    bias = jax.random.normal(keys[1], (3 * H * C,))
    cotangent = jax.random.normal(keys[2], (B, length, H * C))
    # Documents of any length, and padding at the end: no boundary lies where a block's does.
    docs = jnp.sort(jax.random.randint(keys[3], (B, length), 0, 4), axis=1)[:, ::-1]
    out, back = jax.vjp(lambda q, b: function(q, b, Mask(docs), noise), qkv.astype(dtype), bias)
    return [np.asarray(x, np.float64) for x in (out, *back(cotangent.astype(dtype)))]


def plain(dropout: float):
    """Attention of the other platforms."""
    return lambda q, b, mask, noise: self_attention(
        q, b, mask, heads=H, dropout=dropout, noise=noise
    )


def interpreted(dropout: float):
    """The kernels."""
    return lambda q, b, mask, noise: kernels.run(
        Inputs(q, b, mask, noise), heads=H, dropout=dropout, interpret=True
    )


@pytest.mark.parametrize(("length", "dropout"), [(32, 0.3), (128, 0.0), (192, 0.3)])
def test_kernels_are_attention(length: int, dropout: float):
    """Catches blocks that are mixed up, a bias or its gradient left out, dropout by other numbers or not scaled,
    and rows that see other documents. Rows are less than a tile, short, and several tiles."""
    noise = NOISE if dropout else None
    expected = gradients(plain(dropout), length, noise=noise)
    actual = gradients(interpreted(dropout), length, noise=noise)
    for name, x, y in zip(("out", "d_qkv", "d_bias"), expected, actual, strict=True):
        np.testing.assert_allclose(y, x, rtol=2e-5, atol=2e-5 * np.abs(x).max(), err_msg=name)


def test_bfloat16_is_as_exact_as_plain_attention():
    """Catches sums in bfloat16: of the softmax, of a bias's gradient, of a tile's products."""
    exact = gradients(plain(0.3), 128, noise=NOISE)
    coarse = gradients(plain(0.3), 128, "bfloat16", NOISE)
    actual = gradients(interpreted(0.3), 128, "bfloat16", NOISE)
    for x, y, z in zip(exact, coarse, actual, strict=True):
        assert np.linalg.norm(z - x) < 1.5 * np.linalg.norm(y - x)


def test_what_is_not_supported_is_refused():
    """Catches a shape that would end in an error of the compiler, and a mask or a rotation that would be left out."""

    def reason(length=128, channels=64, dtype=jnp.bfloat16, rotation=None, **mask) -> str:
        qkv = jax.ShapeDtypeStruct((8, length, 3 * 4 * channels), dtype)
        docs = jax.ShapeDtypeStruct((8, length), jnp.int32)
        inputs = Inputs(qkv, qkv, Mask(docs, **mask), NOISE, rotation)
        return kernels.supports(inputs, heads=4, dropout=0.1)

    assert reason() == ""
    assert "rows of 96 tokens" in reason(length=96)
    assert "48 channels" in reason(channels=48)
    assert "float32" in reason(dtype=jnp.float32)
    assert "window of 64 tokens" in reason(window=64)
    assert "causal" in reason(causal=True)
    assert "rotary positions" in reason(rotation=Rotation(None, None))


@pytest.mark.parametrize(
    ("kind", "here"),
    [
        ("NVIDIA H100 80GB HBM3", True),
        ("NVIDIA H200", True),
        ("NVIDIA GH200 480GB", True),
        ("NVIDIA A100-SXM4-40GB", False),
        ("NVIDIA H20", False),
        ("AMD Instinct MI300X", False),
    ],
)
def test_kernels_are_for_the_gpus_they_were_made_for(kind: str, here: bool):
    """Catches kernels on a GPU that has too little memory on a multiprocessor for them, or is not NVIDIA's."""
    device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        assert (machine.card() is machine.HOPPER) is here
