"""The TPU's attention kernels, interpreted, against plain attention; and which version is chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AxisType

from electra_jax.ops import kernel as kernels
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention import Mask, Rotation, self_attention
from electra_jax.ops.attention import tpu as attention_kernel
from electra_jax.ops.attention.inputs import Inputs

B, L, H, C = 2, 128, 4, 64
DOCS = jnp.array([[1] * 40 + [2] * 60 + [0] * 28, [1] * L], jnp.int32)


def both(dropout: float, dtype: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Output and the gradients by projections and bias, by the kernels and by plain attention."""
    draw = np.random.default_rng(0)
    qkv, bias = draw.normal(size=(B, L, 3 * H * C)), draw.normal(size=3 * H * C)
    cotangent = jnp.asarray(draw.normal(size=(B, L, H * C)), dtype)
    noise = noise_ops.for_rows(jax.random.key(3), jnp.arange(B) + 7) if dropout else None

    def kernel(qkv, bias):
        return attention_kernel.run(
            Inputs(qkv, bias, Mask(DOCS), noise), heads=H, dropout=dropout, interpret=True
        )

    def plain(qkv, bias):
        return self_attention(qkv, bias, Mask(DOCS), heads=H, dropout=dropout, noise=noise)

    def run(f):
        out, back = jax.vjp(f, jnp.asarray(qkv, dtype), jnp.asarray(bias, jnp.float32))
        return out, *back(cotangent)

    actual = (jax.jit(run, static_argnums=0)(f) for f in (kernel, plain))
    return tuple([np.asarray(x, np.float32) for x in arrays] for arrays in actual)


@pytest.mark.parametrize(
    ("dropout", "dtype", "bound"), [(0.1, "float32", 1e-6), (0.0, "bfloat16", 2e-2)], ids=str
)
def test_kernels_equal_plain_attention(monkeypatch, dropout, dtype, bound):
    """Catches another mask of dropout than `noise.dropout`'s, a document or a pad that is seen, heads mixed up, a
    gradient without its scale, and blocks of queries whose gradients are not added up."""
    monkeypatch.setattr(attention_kernel, "_QUERIES", 64)
    for actual, expected in zip(*both(dropout, dtype), strict=True):
        assert np.abs(actual - expected).max() < bound * np.abs(expected).max()


def traced(platform: str, shape: tuple[int, ...], devices: int = 2, **options) -> str:
    """The program that `attention` makes for so many devices of a platform."""
    mesh = jax.sharding.AbstractMesh(
        (devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        abstract_device=AbstractDevice(
            device_kind={"tpu": "TPU v5 lite"}.get(platform, platform),
            num_cores=1,
            platform=platform,
        ),
    )
    batch, length, heads, channels = shape
    x = jax.ShapeDtypeStruct(
        (batch, length, 3 * heads * channels), options.pop("dtype", jnp.bfloat16)
    )
    bias = jax.ShapeDtypeStruct(x.shape[-1:], jnp.float32)
    noise = noise_ops.Noise(*[jax.ShapeDtypeStruct(shape[:1], jnp.uint32)] * 2)
    mask = Mask(jax.ShapeDtypeStruct(shape[:2], jnp.int32), *options.pop("mask", ()))
    rotation = None
    if options.pop("rotated", False):
        rotation = Rotation(
            *[jax.ShapeDtypeStruct((batch, length, channels // 2), jnp.float32)] * 2
        )
    attend = functools.partial(self_attention, heads=heads, **options)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.make_jaxpr(lambda *a: attend(*a[:3], noise=a[3], rotation=a[4]))(
            x, bias, mask, noise, rotation
        )
    return str(program)


def test_a_tpu_takes_the_kernel_and_says_what_it_cannot(capfd):
    """Catches a kernel taken for what it does not honour, a fallback that is not reported, and one reported at
    every layer."""
    kernels.report.cache_clear()
    for options in ({}, {"dropout": 0.1}):
        assert "pallas_call" in traced("tpu", (4, 128, 4, 64), **options)
    assert "pallas_call" not in traced("cpu", (4, 128, 4, 64))
    assert capfd.readouterr().err == ""
    for _ in range(2):
        for shape, options in [
            ((4, 120, 4, 64), {}),
            ((4, 128, 4, 32), {}),
            ((3, 128, 4, 64), {}),
            ((4, 1152, 4, 64), {}),
            ((4, 1024, 64, 128), {"dtype": jnp.float32}),
            ((4, 128, 4, 64), {"mask": (64,)}),
            ((4, 128, 4, 64), {"mask": (None, True)}),
            ((4, 128, 4, 64), {"rotated": True}),
        ]:
            assert "pallas_call" not in traced("tpu", shape, **options)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 8
    assert all("does not support" in line for line in lines)


def test_a_gpu_takes_cudnn_only_without_dropout(monkeypatch, capfd):
    """Catches dropout that is lost in cuDNN, whose attention has none here."""
    kernels.report.cache_clear()
    calls = []

    def fused(q, *_, **options):
        calls.append(options["implementation"])
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", fused)
    traced("cuda", (4, 128, 4, 64), dropout=0.1)
    traced("cuda", (4, 128, 4, 64), dtype=jnp.float32)
    assert calls == []
    assert len(capfd.readouterr().err.splitlines()) == 2
    traced("cuda", (4, 128, 4, 64))
    assert set(calls) == {"cudnn"}


def test_a_gpu_without_cudnn_says_so(capfd):
    """Catches a traceback on machines whose cuDNN is missing or too old."""
    jax.clear_caches()  # of what the test before this put in cuDNN's place
    kernels.report.cache_clear()
    traced("cuda", (4, 128, 4, 64))
    assert "cuDNN" in capfd.readouterr().err
