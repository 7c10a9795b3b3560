"""The GPU's attention kernels, interpreted, against attention in plain array functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import attention, target
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gpu import attention as kernels

B, H, C = 3, 2, 16
NOISE = noise_ops.for_rows(jax.random.key(7), jnp.arange(5, 5 + B))


def gradients(function, length: int, dtype: str = "float32", noise=None):
    """Output of `function` [B, L, D] and its gradients for queries, keys and values, and for their bias; float64."""
    keys = jax.random.split(jax.random.key(length), 4)
    qkv = 2 * jax.random.normal(keys[0], (B, length, 3 * H * C))
    bias = jax.random.normal(keys[1], (3 * H * C,))
    slope = jax.random.normal(keys[2], (B, length, H * C))
    # Documents of any length, and padding at the end: no boundary lies where a block's does.
    docs = jnp.sort(jax.random.randint(keys[3], (B, length), 0, 4), axis=1)[:, ::-1]
    out, back = jax.vjp(lambda q, b: function(q, b, docs, noise), qkv.astype(dtype), bias)
    return [np.asarray(x, np.float64) for x in (out, *back(slope.astype(dtype)))]


def plain(dropout: float):
    """Attention of the other platforms."""
    return lambda q, b, docs, noise: attention.self_attention(
        q, b, docs, heads=H, dropout=dropout, noise=noise
    )


def interpreted(dropout: float):
    """The kernels."""
    return lambda q, b, docs, noise: kernels.self_attention(q, b, docs, noise, H, dropout, True)


@pytest.mark.parametrize(("length", "dropout"), [(32, 0.3), (128, 0.0), (192, 0.3)])
def test_kernels_are_attention(length: int, dropout: float):
    """Catches blocks that are mixed up, a bias or its gradient left out, dropout by other numbers or not scaled,
    and rows that see other documents. Rows are less than a tile, short, and several tiles."""
    noise = NOISE if dropout else None
    expected = gradients(plain(dropout), length, noise=noise)
    found = gradients(interpreted(dropout), length, noise=noise)
    for name, x, y in zip(("out", "d_qkv", "d_bias"), expected, found, strict=True):
        np.testing.assert_allclose(y, x, rtol=2e-5, atol=2e-5 * np.abs(x).max(), err_msg=name)


def test_bfloat16_is_as_exact_as_plain_attention():
    """Catches sums in bfloat16: of the softmax, of a bias's gradient, of a tile's products."""
    exact = gradients(plain(0.3), 128, noise=NOISE)
    coarse = gradients(plain(0.3), 128, "bfloat16", NOISE)
    found = gradients(interpreted(0.3), 128, "bfloat16", NOISE)
    for x, y, z in zip(exact, coarse, found, strict=True):
        assert np.linalg.norm(z - x) < 1.5 * np.linalg.norm(y - x)


def test_what_is_not_supported_is_told():
    """Catches a shape that would end in an error of the compiler."""
    assert kernels.obstacle(8, 128, 4, 64, jnp.bfloat16, 0.1) == ""
    assert "rows of 96 tokens" in kernels.obstacle(8, 96, 4, 64, jnp.bfloat16, 0.1)
    assert "48 channels" in kernels.obstacle(8, 128, 4, 48, jnp.bfloat16, 0.1)
    assert "float32" in kernels.obstacle(8, 128, 4, 64, jnp.float32, 0.1)


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
        assert target.on_hopper() is here
