"""The GELU against its definition, and what it keeps for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from electra_jax.ops import feedforward, machine
from electra_jax.ops.gelu import gelu

X = np.concatenate([np.linspace(-12, 12, 2001), [-40, 40, 0, 1e-20]]).astype(np.float32)


def test_values_and_derivatives_by_definition():
    """Catches the tanh approximation, a derivative of it, and NaN far out, where x * exp(-x^2 / 2) is 0."""
    wide = X.astype(np.float64)
    value, derivative = jax.vmap(jax.value_and_grad(gelu))(jnp.asarray(X))
    assert np.abs(value - wide * special.ndtr(wide)).max() < 2e-6
    assert np.abs(derivative - (special.ndtr(wide) + wide * stats.norm.pdf(wide))).max() < 1e-6


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_only_the_argument_is_kept(dtype):
    """Catches intermediate arrays kept for the backward pass, and a dtype that changes on the way."""
    x = jnp.asarray(X, dtype)
    value, back = jax.vjp(gelu, x)
    saved = [leaf for leaf in jax.tree.leaves(back) if leaf.size == x.size]
    assert len(saved) == 1 and saved[0].dtype == value.dtype == dtype
    assert back(value)[0].dtype == dtype


def test_a_compiled_step_keeps_the_argument_alone(monkeypatch):
    """Catches a forward pass that keeps erf for the backward pass, an array as large as what it is of: a quarter more
    memory a layer. Without the barrier it is kept, or this test sees nothing."""
    shapes = [(16, 128, 256), (256, 1024), (1024,), (1024, 256)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def blocks(x, up, bias, down):
        for _ in range(4):
            x = feedforward.feed_forward(x, up, bias, down)
        return jnp.sum(x * x)

    memory = {}
    for platform in ("cpu", "gpu"):
        monkeypatch.setattr(machine, "platform", lambda platform=platform: platform)
        compiled = jax.jit(jax.grad(blocks, range(4))).lower(*arrays).compile()
        memory[platform] = compiled.memory_analysis().temp_size_in_bytes
    a_hidden_array = 16 * 128 * 1024 * 4
    assert memory["cpu"] <= memory["gpu"] - 2 * a_hidden_array
