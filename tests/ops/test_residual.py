"""LayerNorm with residual or dropout: the plain versions against Flax's modules, interpreted kernels against them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AxisType

from electra_jax.model.layers import layer_norm
from electra_jax.ops import noise as noise_ops
from electra_jax.ops import residual, target
from electra_jax.ops.gpu import norm as norm_gpu
from electra_jax.ops.gpu import residual as residual_gpu
from electra_jax.ops.gpu import rows as rows_gpu

B = 2
RATE = 0.1
HOPPER = "NVIDIA H100 80GB HBM3"


def drawn(
    length: int, width: int, x_dtype: str, h_dtype: str
) -> tuple[list[jax.Array], tuple[jax.Array, jax.Array]]:
    """The arguments of `residual_norm`, and slopes of its results."""
    draw = np.random.default_rng(0)
    x, h, *slopes = (draw.normal(size=(B, length, width)) for _ in range(4))
    params = [jnp.asarray(draw.normal(size=width), jnp.float32) for _ in range(3)]
    of_y, of_operand = map(jnp.asarray, slopes, (x_dtype, h_dtype))
    return [jnp.asarray(x, x_dtype), jnp.asarray(h, h_dtype), *params], (of_y, of_operand)


def noise() -> noise_ops.Noise:
    return noise_ops.for_rows(jax.random.key(3), jnp.arange(B) + 7)


class Modules(nn.Module):
    """What `residual_norm` takes the place of in a layer."""

    x_dtype: str
    h_dtype: str
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, inner: jax.Array, noise: noise_ops.Noise) -> jax.Array:
        h = nn.Dense(x.shape[-1], dtype=self.h_dtype, name="dense")(inner)
        h = noise_ops.dropout(h, self.dropout, noise)
        return layer_norm(self.x_dtype, "norm")(x + h)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("x_dtype", ["bfloat16", "float32"])
def test_plain_version_is_the_modules_to_the_bit(monkeypatch, platform, x_dtype):
    """Catches a bias added after rounding to another dtype, a sum that is not rounded to the stream's dtype, and the
    other formula of the variance."""
    monkeypatch.setattr(target, "platform", lambda: platform)
    (x, inner, bias, scale, shift), _ = drawn(16, 64, x_dtype, "bfloat16")
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(64, 64)), jnp.float32)
    h = jnp.dot(inner, kernel.astype(inner.dtype))
    params = {"dense": {"kernel": kernel, "bias": bias}, "norm": {"scale": scale, "bias": shift}}
    modules = Modules(x_dtype, "bfloat16", RATE)
    expected = modules.apply({"params": params}, x, inner, noise())
    found, operand = residual.residual_norm(x, h, bias, scale, shift, dropout=RATE, noise=noise())
    assert found.dtype == expected.dtype == x_dtype
    assert (found == expected).all()
    assert operand.dtype == h.dtype
    assert (operand == expected.astype(h.dtype)).all()


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_plain_norm_is_the_module_to_the_bit(monkeypatch, platform, dtype):
    """Catches dropout before a result is rounded to its dtype, and the other formula of the variance."""
    monkeypatch.setattr(target, "platform", lambda: platform)
    (x, _, _, scale, shift), _ = drawn(16, 64, "float32", "float32")
    params = {"params": {"scale": scale, "bias": shift}}
    expected = noise_ops.dropout(layer_norm(dtype).apply(params, x), RATE, noise())
    found = residual.norm(x, scale, shift, dropout=RATE, noise=noise(), dtype=dtype)
    assert found.dtype == expected.dtype == dtype
    assert (found == expected).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_gradients_by_hand_are_those_of_autodiff(monkeypatch, dtype):
    """Catches a term of the norm's gradient that is missing, sums over another axis, and another dtype."""
    (x, _, _, scale, shift), (slope, _) = drawn(16, 64, dtype, dtype)
    results = {}
    for platform in ("cpu", "gpu"):  # by hand; by automatic differentiation
        monkeypatch.setattr(target, "platform", lambda platform=platform: platform)
        y, pull = jax.vjp(lambda *a: residual._layer_norm(*a, dtype), x, scale, shift)
        results[platform] = (y, *pull(slope))
    for mine, other in zip(results["cpu"], results["gpu"], strict=True):
        assert mine.dtype == other.dtype
        tolerance = 1e-4 if mine.dtype == "float32" else 0.02
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(
    ("length", "width", "x_dtype", "h_dtype", "dropout"),
    [
        (80, 64, "float32", "float32", RATE),
        (20, 256, "float32", "float32", RATE),
        (20, 256, "bfloat16", "bfloat16", RATE),
        (20, 256, "float32", "bfloat16", 0.0),
        (20, 256, "bfloat16", "bfloat16", 0.0),
        (10, 768, "float32", "float32", RATE),
        (8, 320, "float32", "float32", 0.0),
        (8, 448, "float32", "float32", RATE),
    ],
    ids=str,
)
def test_kernels_equal_the_plain_version(monkeypatch, length, width, x_dtype, h_dtype, dropout):
    """Catches another mask of dropout than `noise.dropout`'s, columns beyond the width in a mean, blocks that programs
    leave out or take twice, partial sums that are lost, one gradient for x and h where they differ, and a slope that is
    left out where the result is used twice."""
    three_programs(monkeypatch, residual_gpu, (B, length, width))
    arrays, slopes = drawn(length, width, x_dtype, h_dtype)
    kernels = functools.partial(residual_gpu.residual_norm, interpret=True)
    results = gradients(kernels, arrays, slopes, dropout)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (arrays, slopes))
    dtypes = [a.dtype for a in (*slopes, *arrays)]
    for found, expected, dtype in zip(
        results, gradients(residual._plain, *wide, dropout), dtypes, strict=True
    ):
        assert found.dtype == dtype
        bound = 2e-6 if dtype == jnp.float32 else 2**-8
        assert np.abs(found - expected).max() < bound * np.abs(expected).max()


@pytest.mark.parametrize(
    ("length", "width", "x_dtype", "dtype", "dropout"),
    [
        (80, 64, "float32", "float32", RATE),
        (20, 256, "float32", "bfloat16", RATE),
        (20, 256, "bfloat16", "float32", 0.0),
        (10, 768, "float32", "float32", RATE),
        (8, 320, "float32", "float32", 0.0),
        (8, 448, "float32", "float32", RATE),
    ],
    ids=str,
)
def test_kernels_of_the_norm_alone_equal_it(monkeypatch, length, width, x_dtype, dtype, dropout):
    """Catches dropout before the norm instead of after it, its gradient without the mask, and the other dtype."""
    three_programs(monkeypatch, norm_gpu, (B, length, width))
    (x, _, _, scale, shift), (_, slope) = drawn(length, width, x_dtype, dtype)
    arrays = (x, scale, shift)

    def kernels(*a):
        return norm_gpu.norm(*a, jnp.dtype(dtype), interpret=True)

    def plain(*a):
        return residual._plain_norm(*a, jnp.float32)

    results = gradients(kernels, arrays, slope, dropout)
    wide = [a.astype(jnp.float32) for a in (*arrays, slope)]
    for found, expected, wanted in zip(
        results,
        gradients(plain, wide[:-1], wide[-1], dropout),
        (dtype, x_dtype, "float32", "float32"),
        strict=True,
    ):
        assert found.dtype == wanted
        bound = 2e-6 if wanted == "float32" else 2**-8
        assert np.abs(found - expected).max() < bound * np.abs(expected).max()


def three_programs(monkeypatch, kernels, shape: tuple[int, int, int]) -> None:
    """Has the kernels run as three programs, whose numbers of blocks differ."""
    for fitting in ("_FORWARD", "_BACKWARD"):
        monkeypatch.setattr(kernels, fitting, {1: 3, 3: 3})
    monkeypatch.setattr(rows_gpu, "_CORES", 1)
    cut = rows_gpu.shape_of(shape, kernels._BACKWARD, 0.0)
    assert cut.programs == 3 and cut.blocks % 3


@functools.partial(jax.jit, static_argnums=(0, 3))
def gradients(f, arrays, slope, dropout) -> tuple[jax.Array, ...]:
    """The results and the gradients of all arguments."""
    out, back = jax.vjp(lambda *a: f(*a, noise(), dropout), *arrays)
    return *jax.tree.leaves(out), *back(slope)


def test_devices_take_their_own_rows(monkeypatch):
    """Catches keys of noise that stay behind when rows are split, and gradients of parameters that are not added up."""
    monkeypatch.setattr(target, "on_hopper", lambda: True)
    for module, name in ((residual_gpu, "residual_norm"), (norm_gpu, "norm")):
        kernels = functools.partial(getattr(module, name), interpret=True)
        monkeypatch.setattr(module, name, kernels)
    arrays, slopes = drawn(4, 256, "float32", "float32")

    def residual_norm(*arrays):
        return residual.residual_norm(*arrays[:-2], noise=arrays[-2], dropout=arrays[-1])

    def norm(*arrays):
        return residual.norm(*arrays[:-2], noise=arrays[-2], dropout=arrays[-1], dtype="float32")

    def plain_norm(*arrays):
        return residual._plain_norm(*arrays, jnp.float32)

    mesh = jax.make_mesh((2, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=jax.devices()[:2])
    for split, plain, some, slope in (
        (residual_norm, residual._plain, arrays, slopes),
        (norm, plain_norm, [arrays[0], *arrays[3:]], slopes[0]),
    ):
        with jax.set_mesh(mesh):
            results = gradients(split, some, slope, RATE)
        for found, expected in zip(results, gradients(plain, some, slope, RATE), strict=True):
            assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


def traced(shape: tuple[int, int, int], kind: str = HOPPER, **options) -> tuple[str, str]:
    """The programs of `residual_norm` and of `norm` made for two devices of a kind."""
    platform = kind if kind in ("cpu", "tpu") else "cuda"
    mesh = jax.sharding.AbstractMesh(
        (2,),
        ("data",),
        axis_types=(AxisType.Auto,),
        abstract_device=AbstractDevice(device_kind=kind, num_cores=1, platform=platform),
    )
    x = jax.ShapeDtypeStruct(shape, options.pop("dtype", jnp.bfloat16))
    params = [jax.ShapeDtypeStruct(shape[-1:], jnp.float32)] * 3
    keys = noise_ops.Noise(*[jax.ShapeDtypeStruct(shape[:1], jnp.uint32)] * 2)
    norm = functools.partial(residual.norm, dtype=x.dtype)
    programs = ((residual.residual_norm, (x, x, *params, keys)), (norm, (x, *params[1:], keys)))
    with jax.sharding.use_abstract_mesh(mesh):
        residual_norm, norm = (
            str(jax.make_jaxpr(lambda *a, f=f: f(*a[:-1], noise=a[-1], **options))(*arrays))
            for f, arrays in programs
        )
    return residual_norm, norm


def test_a_kernel_is_traced_once_for_all_layers(monkeypatch):
    """Catches kernels that every layer traces and lowers anew: of small's start, a dozen seconds."""
    calls = []

    def counted(x, h, bias, scale, shift, noise, dropout):
        calls.append(dropout)
        return residual._plain(x, h, bias, scale, shift, noise, dropout)

    monkeypatch.setattr(residual_gpu, "residual_norm", counted)
    monkeypatch.setattr(target, "on_hopper", lambda: True)
    (x, h, *params), _ = drawn(4, 256, "float32", "bfloat16")

    def layers(x, h, rate):
        for _ in range(6):
            x, h = residual.residual_norm(x, h, *params, dropout=rate, noise=noise())
        return x

    with jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])):
        jax.jit(lambda x, h: layers(x, h, RATE) + layers(x, h, 0.0)).lower(x, h)
    # Twice, because the arrays that come in know nothing of the mesh as yet.
    assert calls.count(RATE) <= 2 and calls.count(0.0) <= 2


def test_a_gpu_takes_the_kernels_and_says_what_they_cannot(capfd):
    """Catches a fallback nobody is told of, one told of at every layer, and kernels on other platforms."""
    target.tell.cache_clear()
    for width in (64, 128, 256, 512, 768, 1024, 2048):
        for length in (32, 128, 512):
            made = traced((4, length, width), dropout=RATE)
            assert all("pallas_call" in program for program in made)
    for kind in ("cpu", "tpu", "NVIDIA A100-SXM4-80GB"):
        assert "pallas_call" not in "".join(traced((4, 128, 256), kind))
    assert capfd.readouterr().err == ""
    for _ in range(2):
        for shape, options in [
            ((4, 128, 96), {}),
            ((4, 128, 4096), {}),
            ((4, 126, 256), {}),
            ((3, 128, 256), {}),
            ((4, 128, 256), {"dtype": jnp.float16}),
        ]:
            assert "pallas_call" not in "".join(traced(shape, **options))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all("does not support" in line for line in lines)
