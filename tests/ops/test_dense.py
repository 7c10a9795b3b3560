"""Products ordered for a CPU: gradients against automatic differentiation, and the program that they compile to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import dense, feedforward, machine, norm

B, L = 2, 6


def drawn(*shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 32), (32, 8), (8, 8)])
def test_gradients_are_those_of_a_plain_product(inputs, outputs, dtype):
    """Catches operands or a result that stay turned, for wide and for narrow matrices, and another dtype."""
    x, kernel = drawn(B, L, inputs, dtype=dtype), drawn(inputs, outputs, dtype=dtype)
    cotangent = drawn(B, L, outputs, dtype=dtype)
    expected, of_expected = jax.vjp(jnp.dot, x, kernel)
    actual, of_found = jax.vjp(dense.product, x, kernel)
    assert (actual == expected).all()
    tolerance = 1e-5 if dtype == "float32" else 0.02
    for mine, other in zip(of_found(cotangent), of_expected(cotangent), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=tolerance, atol=tolerance
        )


def test_no_loop_computes_a_turned_array(monkeypatch):
    """Catches XLA computing cotangents once more for a kernel's gradient, turned, each number to another page: it took
    a fifth of small's step. Without the order that a CPU wants there is such a loop, or this test sees none."""
    shapes = [(16, 128, 256), (256, 1024), (1024,), (1024, 256), (256,), (256,), (256,)]
    arrays = [drawn(*shape) for shape in shapes]

    def block(x, up, up_bias, down, bias, scale, shift):
        for _ in range(2):
            h = feedforward.feed_forward(x, up, up_bias, down)
            x, _ = norm.residual_norm(x, h, bias, scale, shift)
        return jnp.sum(x * x)

    turned = {}
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(machine, "platform", lambda platform=platform: platform)
        text = jax.jit(jax.grad(block, range(7))).lower(*arrays).compile().as_text()
        bodies = re.findall(r"^%fused\S* \(.*?\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
        turned[platform] = sum(" multiply(" in body and " copy(" in body for body in bodies)
    assert turned["cpu"] == 0
    assert turned["gpu"] > 0
