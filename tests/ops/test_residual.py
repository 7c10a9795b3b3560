"""LayerNorm with residual or dropout: the plain versions against Flax's modules, interpreted kernels against them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AxisType

from electra_jax.model.layers import layer_norm
from electra_jax.ops import kernel, machine
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.norm import hopper as norm_gpu
from electra_jax.ops.norm import hopper_residual as residual_gpu
from electra_jax.ops.norm import hopper_rows as rows_gpu
from electra_jax.ops.norm import norm, plain, residual_norm

B = 2
RATE = 0.1
HOPPER = "NVIDIA H100 80GB HBM3"


def drawn(
    length: int, width: int, x_dtype: str, h_dtype: str
) -> tuple[list[jax.Array], tuple[jax.Array, jax.Array]]:
    """The arguments of `residual_norm`, and cotangents of its results."""
    draw = np.random.default_rng(0)
    x, h, *cotangents = (draw.normal(size=(B, length, width)) for _ in range(4))
    params = [jnp.asarray(draw.normal(size=width), jnp.float32) for _ in range(3)]
    of_y, of_operand = map(jnp.asarray, cotangents, (x_dtype, h_dtype))
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
    monkeypatch.setattr(machine, "platform", lambda: platform)
    (x, inner, bias, scale, shift), _ = drawn(16, 64, x_dtype, "bfloat16")
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(64, 64)), jnp.float32)
    h = jnp.dot(inner, weights.astype(inner.dtype))
    params = {"dense": {"kernel": weights, "bias": bias}, "norm": {"scale": scale, "bias": shift}}
    modules = Modules(x_dtype, "bfloat16", RATE)
    expected = modules.apply({"params": params}, x, inner, noise())
    actual, operand = residual_norm(x, h, bias, scale, shift, dropout=RATE, noise=noise())
    assert actual.dtype == expected.dtype == x_dtype
    assert (actual == expected).all()
    assert operand.dtype == h.dtype
    assert (operand == expected.astype(h.dtype)).all()


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_plain_norm_is_the_module_to_the_bit(monkeypatch, platform, dtype):
    """Catches dropout before a result is rounded to its dtype, and the other formula of the variance."""
    monkeypatch.setattr(machine, "platform", lambda: platform)
    (x, _, _, scale, shift), _ = drawn(16, 64, "float32", "float32")
    params = {"params": {"scale": scale, "bias": shift}}
    expected = noise_ops.dropout(layer_norm(dtype).apply(params, x), RATE, noise())
    actual = norm(x, scale, shift, dropout=RATE, noise=noise(), dtype=dtype)
    assert actual.dtype == expected.dtype == dtype
    assert (actual == expected).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_gradients_by_hand_are_those_of_autodiff(monkeypatch, dtype):
    """Catches a term of the norm's gradient that is missing, sums over another axis, and another dtype."""
    (x, _, _, scale, shift), (cotangent, _) = drawn(16, 64, dtype, dtype)
    results = {}
    for platform in ("cpu", "gpu"):  # by hand; by automatic differentiation
        monkeypatch.setattr(machine, "platform", lambda platform=platform: platform)
        y, pull = jax.vjp(lambda *a: plain.layer_norm(*a, dtype), x, scale, shift)
        results[platform] = (y, *pull(cotangent))
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
    leave out or take twice, partial sums that are lost, one gradient for x and h where they differ, and a cotangent
    that is left out where the result is used twice."""
    three_programs(monkeypatch, residual_gpu, (B, length, width))
    arrays, cotangents = drawn(length, width, x_dtype, h_dtype)

    def kernels(*arrays, noise, dropout):
        inputs = plain.Residual(*arrays, noise if dropout else None)
        return residual_gpu.run(inputs, dropout=dropout, interpret=True)

    results = gradients(kernels, arrays, cotangents, dropout)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (arrays, cotangents))
    dtypes = [a.dtype for a in (*cotangents, *arrays)]
    for actual, expected, dtype in zip(
        results, gradients(residual_norm, *wide, dropout), dtypes, strict=True
    ):
        assert actual.dtype == dtype
        bound = 2e-6 if dtype == jnp.float32 else 2**-8
        assert np.abs(actual - expected).max() < bound * np.abs(expected).max()


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
    (x, _, _, scale, shift), (_, cotangent) = drawn(length, width, x_dtype, dtype)
    arrays = (x, scale, shift)

    in_float32 = functools.partial(norm, dtype="float32")

    def kernels(*arrays, noise, dropout):
        inputs = plain.Normed(*arrays, noise if dropout else None)
        return norm_gpu.run(inputs, dropout=dropout, dtype=jnp.dtype(dtype), interpret=True)

    results = gradients(kernels, arrays, cotangent, dropout)
    wide = [a.astype(jnp.float32) for a in (*arrays, cotangent)]
    for actual, expected, wanted in zip(
        results,
        gradients(in_float32, wide[:-1], wide[-1], dropout),
        (dtype, x_dtype, "float32", "float32"),
        strict=True,
    ):
        assert actual.dtype == wanted
        bound = 2e-6 if wanted == "float32" else 2**-8
        assert np.abs(actual - expected).max() < bound * np.abs(expected).max()


def three_programs(monkeypatch, kernels, shape: tuple[int, int, int]) -> None:
    """Has the kernels run as three programs, whose numbers of blocks differ."""
    for fitting in ("_FORWARD", "_BACKWARD"):
        monkeypatch.setattr(kernels, fitting, {1: 3, 3: 3})
    monkeypatch.setattr(machine, "HOPPER", machine.Card(multiprocessors=1))
    cut = rows_gpu.shape_of(shape, kernels._BACKWARD, 0.0)
    assert cut.programs == 3 and cut.blocks % 3


@functools.partial(jax.jit, static_argnums=(0, 3))
def gradients(f, arrays, cotangent, dropout) -> tuple[jax.Array, ...]:
    """The results and the gradients of all arguments."""
    out, back = jax.vjp(lambda *a: f(*a, noise=noise(), dropout=dropout), *arrays)
    return *jax.tree.leaves(out), *back(cotangent)


def test_devices_take_their_own_rows(monkeypatch):
    """Catches keys of noise that stay behind when rows are split, and gradients of parameters that are not added up."""
    monkeypatch.setattr(machine, "card", lambda: machine.HOPPER)
    for module in (residual_gpu, norm_gpu):
        monkeypatch.setattr(module, "run", functools.partial(module.run, interpret=True))
    arrays, cotangents = drawn(4, 256, "float32", "float32")

    mesh = jax.make_mesh((2, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=jax.devices()[:2])
    in_float32 = functools.partial(norm, dtype="float32")
    for split, some, cotangent in (
        (residual_norm, arrays, cotangents),
        (in_float32, [arrays[0], *arrays[3:]], cotangents[0]),
    ):
        with jax.set_mesh(mesh), kernel.recorded() as taken:
            results = gradients(split, some, cotangent, RATE)
        assert taken <= {"residual_norm/hopper_residual", "norm/hopper"} and taken
        for actual, expected in zip(results, gradients(split, some, cotangent, RATE), strict=True):
            assert np.abs(actual - expected).max() < 2e-6 * np.abs(expected).max()


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
    in_dtype = functools.partial(norm, dtype=x.dtype)
    programs = ((residual_norm, (x, x, *params, keys)), (in_dtype, (x, *params[1:], keys)))
    with jax.sharding.use_abstract_mesh(mesh):
        first, second = (
            str(jax.make_jaxpr(lambda *a, f=f: f(*a[:-1], noise=a[-1], **options))(*arrays))
            for f, arrays in programs
        )
    return first, second


def test_a_kernel_is_traced_once_for_all_layers(monkeypatch):
    """Catches kernels that every layer traces and lowers anew: of small's start, a dozen seconds."""
    calls = []

    def counted(inputs, dropout):
        calls.append(dropout)
        return plain.residual_norm(inputs, dropout)

    monkeypatch.setattr(residual_gpu, "run", counted)
    monkeypatch.setattr(machine, "card", lambda: machine.HOPPER)
    (x, h, *params), _ = drawn(4, 256, "float32", "bfloat16")

    def layers(x, h, rate):
        for _ in range(6):
            x, h = residual_norm(x, h, *params, dropout=rate, noise=noise())
        return x

    with jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])):
        jax.jit(lambda x, h: layers(x, h, RATE) + layers(x, h, 0.0)).lower(x, h)
    # Twice, because the arrays that come in know nothing of the mesh as yet.
    assert calls.count(RATE) <= 2 and calls.count(0.0) <= 2


def test_a_gpu_takes_the_kernels_and_says_what_they_cannot(capfd):
    """Catches a fallback that is not reported, one reported at every layer, and kernels on other platforms."""
    kernel.report.cache_clear()
    for width in (64, 128, 256, 512, 768, 1024, 2048):
        for length in (32, 128, 512):
            programs = traced((4, length, width), dropout=RATE)
            assert all("pallas_call" in program for program in programs)
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
