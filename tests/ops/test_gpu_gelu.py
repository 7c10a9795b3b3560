"""gelu(h + bias): the plain version against Flax's module, the GPU's kernels, interpreted, against it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AxisType
from scipy import special, stats

from electra_jax.ops import kernel, machine
from electra_jax.ops.gelu import bias_gelu, gelu
from electra_jax.ops.gelu import hopper as gelu_gpu
from electra_jax.ops.gelu.inputs import Inputs

HOPPER = "NVIDIA H100 80GB HBM3"


def drawn(length: int, width: int, dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """h, bias, and a cotangent of the result."""
    draw = np.random.default_rng(0)
    h, cotangent = (jnp.asarray(draw.normal(size=(2, length, width)) * 2, dtype) for _ in range(2))
    return h, jnp.asarray(draw.normal(size=width), jnp.float32), cotangent


@functools.partial(jax.jit, static_argnums=0)
def gradients(f, h, bias, cotangent) -> tuple[jax.Array, ...]:
    """The result and the gradients of h and bias."""
    out, back = jax.vjp(f, h, bias)
    return out, *back(cotangent)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_plain_version_is_the_module_to_the_bit(dtype):
    """Catches a bias added in another dtype than nn.Dense's."""
    inner, bias, _ = drawn(8, 256, dtype)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(256, 256)), jnp.float32)
    params = {"params": {"kernel": weights, "bias": bias}}
    expected = gelu(nn.Dense(256, dtype=dtype).apply(params, inner))
    actual = bias_gelu(jnp.dot(inner, weights.astype(dtype)), bias)
    assert actual.dtype == expected.dtype == dtype
    assert (actual == expected).all()


X = np.concatenate([np.linspace(-12, 12, 20001), [-1e3, 1e3, 0, 1e-20]]).astype(np.float32)
WIDE = X.astype(np.float64)


def test_gelu_by_definition():
    """Catches a wrong digit in the approximation, and NaN far out."""
    exact = WIDE * special.ndtr(WIDE)
    error = np.abs(gelu_gpu._gelu(jnp.asarray(X), True) - exact)
    assert (error <= 1e-7 + 1e-7 * np.abs(exact)).all()


def test_derivative_by_definition():
    """Catches a sign lost where the derivative is taken from that at -x, and NaN far out."""
    exact = special.ndtr(WIDE) + WIDE * stats.norm.pdf(WIDE)
    assert np.abs(gelu_gpu._derivative(jnp.asarray(X), True) - exact).max() < 3e-7


@pytest.mark.parametrize(
    ("width", "dtype"), [(256, "float32"), (768, "float32"), (768, "bfloat16")], ids=str
)
def test_kernel_equals_the_plain_version(monkeypatch, width, dtype):
    """Catches columns mixed up, blocks that programs leave out or take twice, and partial sums that are lost."""
    monkeypatch.setattr(gelu_gpu, "_PROGRAMS", 3 * width // 256)
    h, bias, cotangent = drawn(20, width, dtype)  # five blocks of rows for three programs

    def interpreted(h, bias):
        return gelu_gpu.run(Inputs(h, bias), interpret=True)

    wide = [a.astype(jnp.float32) for a in (h, bias, cotangent)]
    expected = gradients(bias_gelu, *wide)
    for f, e, like in zip(
        gradients(interpreted, h, bias, cotangent), expected, (h, h, bias), strict=True
    ):
        assert f.dtype == like.dtype
        bound = 2e-6 if f.dtype == jnp.float32 else 2**-8
        assert np.abs(f - e).max() < bound * np.abs(e).max()


def test_devices_take_their_own_rows(monkeypatch):
    """Catches gradients of the bias that are not added up."""
    monkeypatch.setattr(machine, "card", lambda: machine.HOPPER)
    monkeypatch.setattr(gelu_gpu, "run", functools.partial(gelu_gpu.run, interpret=True))
    arrays = drawn(8, 256, "float32")
    mesh = jax.make_mesh((2, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=jax.devices()[:2])
    with jax.set_mesh(mesh), kernel.recorded() as taken:
        results = gradients(bias_gelu, *arrays)
    assert "bias_gelu/hopper" in taken
    for actual, expected in zip(results, gradients(bias_gelu, *arrays), strict=True):
        assert np.abs(actual - expected).max() < 2e-6 * np.abs(expected).max()


def traced(shape: tuple[int, int, int], kind: str = HOPPER, dtype=jnp.bfloat16) -> str:
    """Both passes made for two devices of a kind."""
    platform = kind if kind in ("cpu", "tpu") else "cuda"
    mesh = jax.sharding.AbstractMesh(
        (2,),
        ("data",),
        axis_types=(AxisType.Auto,),
        abstract_device=AbstractDevice(device_kind=kind, num_cores=1, platform=platform),
    )
    h = jax.ShapeDtypeStruct(shape, dtype)
    bias = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
    with jax.sharding.use_abstract_mesh(mesh):
        return str(jax.make_jaxpr(functools.partial(gradients, bias_gelu))(h, bias, h))


def test_a_gpu_takes_the_kernel_and_says_what_it_cannot(capfd):
    """Catches a fallback that is not reported, one reported at every layer, and kernels on other platforms."""
    kernel.report.cache_clear()
    for width in (256, 1024, 3072, 4096):
        program = traced((4, 128, width))
        assert "name=gelu\n" in program and "name=gelu_backward\n" in program
    for kind in ("cpu", "tpu", "NVIDIA A100-SXM4-80GB"):
        assert "pallas_call" not in traced((4, 128, 256), kind)
    assert capfd.readouterr().err == ""
    for _ in range(2):
        for shape, options in [
            ((4, 128, 128), {}),
            ((2, 12, 256), {}),
            ((3, 128, 256), {}),
            ((4, 128, 256), {"dtype": jnp.float16}),
        ]:
            assert "pallas_call" not in traced(shape, **options)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("does not support" in line for line in lines)
