"""What is ordered for a CPU, against automatic differentiation, and the program that it compiles to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import attention, dense, feedforward, residual, target

B, L = 2, 6


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(target, "platform", lambda: "cpu")


def drawn(*shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 32), (32, 8), (8, 8)])
def test_gradients_are_those_of_a_plain_product(on_cpu, inputs, outputs, dtype):
    """Catches operands or a result that stay turned, for wide and for narrow matrices, and another dtype."""
    x, kernel = drawn(B, L, inputs, dtype=dtype), drawn(inputs, outputs, dtype=dtype)
    slope = drawn(B, L, outputs, dtype=dtype)
    expected, of_expected = jax.vjp(jnp.dot, x, kernel)
    found, of_found = jax.vjp(dense.product, x, kernel)
    assert (found == expected).all()
    tolerance = 1e-5 if dtype == "float32" else 0.02
    for mine, other in zip(of_found(slope), of_expected(slope), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_scores_are_those_of_the_einsum(dtype):
    """Catches heads, keys or channels exchanged in the keys' gradient, and slopes rounded before their product."""
    q, k = drawn(B, L, 3, 5, dtype=dtype), drawn(B, L + 2, 3, 5, dtype=dtype)
    slope = drawn(B, 3, L, L + 2)

    def plain(q: jax.Array, k: jax.Array) -> jax.Array:
        return jnp.einsum("blhc,bmhc->bhlm", q, k, preferred_element_type=jnp.float32)

    _, of_expected = jax.vjp(plain, q, k)
    _, of_found = jax.vjp(attention._scores, q, k)
    for mine, other in zip(of_found(slope), of_expected(slope), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=1e-5, atol=1e-5
        )


def test_gradients_of_the_norm_are_those_of_autodiff(monkeypatch):
    """Catches a term of the norm's gradient that is missing, and sums over another axis."""
    x, scale, shift, slope = drawn(B, L, 8), drawn(8), drawn(8), drawn(B, L, 8) + 1
    results = {}
    for platform in ("cpu", "gpu"):  # by hand; by automatic differentiation
        monkeypatch.setattr(target, "platform", lambda platform=platform: platform)
        y, pull = jax.vjp(lambda *a: residual._layer_norm(*a, jnp.float32), x, scale, shift)
        results[platform] = (y, *pull(slope))
    for mine, other in zip(results["cpu"], results["gpu"], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_no_loop_computes_a_turned_array(monkeypatch):
    """Catches XLA computing slopes once more for a kernel's gradient, turned, each number to another page: it took a
    fifth of small's step. Without the order that a CPU wants there is such a loop, or this test sees none."""
    shapes = [(16, 128, 256), (256, 1024), (1024,), (1024, 256), (256,), (256,), (256,)]
    arrays = [drawn(*shape) for shape in shapes]

    def block(x, up, up_bias, down, bias, scale, shift):
        for _ in range(2):
            h = feedforward.feed_forward(x, up, up_bias, down)
            x, _ = residual.residual_norm(x, h, bias, scale, shift)
        return jnp.sum(x * x)

    turned = {}
    for platform in ("cpu", None):
        monkeypatch.setattr(target, "platform", lambda platform=platform: platform)
        text = jax.jit(jax.grad(block, range(7))).lower(*arrays).compile().as_text()
        bodies = re.findall(r"^%fused\S* \(.*?\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
        turned[platform] = sum(" multiply(" in body and " copy(" in body for body in bodies)
    assert turned["cpu"] == 0
    assert turned[None] > 0


def test_gelu_keeps_its_argument_alone(monkeypatch):
    """Catches a forward pass that keeps erf for the backward pass, an array as large as what it is of: a quarter more
    memory a layer. Without the barrier it is kept, or this test sees nothing."""
    arrays = [drawn(16, 128, 256), drawn(256, 1024), drawn(1024), drawn(1024, 256)]

    def blocks(x, up, bias, down):
        for _ in range(4):
            x = feedforward.feed_forward(x, up, bias, down)
        return jnp.sum(x * x)

    memory = {}
    for platform in ("cpu", None):
        monkeypatch.setattr(target, "platform", lambda platform=platform: platform)
        compiled = jax.jit(jax.grad(blocks, range(4))).lower(*arrays).compile()
        memory[platform] = compiled.memory_analysis().temp_size_in_bytes
    a_hidden_array = 16 * 128 * 1024 * 4
    assert memory["cpu"] <= memory[None] - 2 * a_hidden_array
