"""Attention: equal to softmax written out, within documents only, with dropout on the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention import Mask, Rotation, hopper, plain, self_attention, tpu
from electra_jax.ops.attention.inputs import Inputs

attention = jax.jit(plain.attention, static_argnames="dropout")

B, L, H, C = 2, 12, 2, 4
DOCS = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12], np.int32)
MASK = Mask(DOCS)


@pytest.fixture(scope="module")
def qkv() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    q, k, v = draw.normal(size=(3, B, L, H, C)).astype(np.float32)
    return q * 2, k, v


def weights(q: np.ndarray, k: np.ndarray, see_BxLxL: np.ndarray) -> np.ndarray:
    """Softmax over the visible keys, in float64, one query at a time."""
    out = np.zeros((B, H, L, L))
    for b, h, i in np.ndindex(B, H, L):
        keys = np.flatnonzero(see_BxLxL[b, i])
        scores = k[b, keys, h].astype(np.float64) @ q[b, i, h] / np.sqrt(C)
        exp = np.exp(scores - scores.max())
        out[b, h, i, keys] = exp / exp.sum()
    return out


def visible(window: int | None = None, causal: bool = False) -> np.ndarray:
    see = np.zeros((B, L, L), bool)
    for b, i, j in np.ndindex(B, L, L):
        see[b, i, j] = DOCS[b, i] == DOCS[b, j]
        see[b, i, j] &= not (causal and j > i) and (window is None or abs(i - j) <= window)
    return see


@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"window": 2}, {"window": 0}, {"causal": True, "window": 3}],
    ids=str,
)
def test_equals_softmax_written_out(qkv, options):
    """Catches a missing scale, a mask of the wrong side or width, mixed heads, and pads seen."""
    q, k, v = qkv
    out = attention(q, k, v, Mask(DOCS, **options))
    expected = np.einsum("bhlm,bmhc->blhc", weights(q, k, visible(**options)), v)
    assert np.abs(np.asarray(out) - expected).max() < 2e-6


@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"window": 2}, {"causal": True, "window": 3}],
    ids=str,
)
def test_rotation_is_by_the_difference_of_positions(options):
    """Catches a rotation before the bias, of values or of neighbouring channels, angles of another base, and a mask
    that the seam does not hand on. Positions begin anew in every document, as packed rows have it."""
    draw = np.random.default_rng(2)
    qkv, bias = draw.normal(size=(B, L, 3 * H * C)), draw.normal(size=3 * H * C)
    positions = np.array([[*range(5), *range(4), *range(3)], range(12)])
    q, k, v = np.moveaxis((qkv + bias).reshape(B, L, 3, H, C), 2, 0)

    def turned(x: np.ndarray) -> np.ndarray:
        """Pairs of channels as complex numbers, times e^(i angle)."""
        angles = positions[..., None] / 100.0 ** (2 * np.arange(C // 2) / C)
        pairs = (x[..., : C // 2] + 1j * x[..., C // 2 :]) * np.exp(1j * angles)[:, :, None]
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    actual = self_attention(
        jnp.asarray(qkv, jnp.float32),
        jnp.asarray(bias, jnp.float32),
        Mask(jnp.asarray(DOCS), **options),
        heads=H,
        rotation=Rotation.of(jnp.asarray(positions), C, base=100.0),
    )
    expected = np.einsum("bhlm,bmhc->blhc", weights(turned(q), turned(k), visible(**options)), v)
    np.testing.assert_allclose(actual, expected.reshape(B, L, -1), atol=2e-5)
    # Only the difference counts.
    moved = Rotation.of(jnp.asarray(positions + 100), C, base=100.0)
    again = self_attention(
        *(jnp.asarray(x, jnp.float32) for x in (qkv, bias)),
        Mask(DOCS, **options),
        heads=H,
        rotation=moved,
    )
    np.testing.assert_allclose(again, actual, atol=2e-4)


@pytest.mark.parametrize("kernel", [None, hopper, tpu], ids=["plain", "hopper", "tpu"])
def test_projections_may_have_no_bias(kernel):
    """Catches an implementation that reads a bias where a block has none, and gradients that differ without one."""
    draw = np.random.default_rng(3)
    qkv = jnp.asarray(draw.normal(size=(1, 128, 3 * 64)), jnp.float32)
    mask = Mask(jnp.ones((1, 128), jnp.int32))

    def output(qkv: jax.Array, bias: jax.Array | None) -> jax.Array:
        if kernel is None:
            return self_attention(qkv, bias, mask, heads=1)
        return kernel.run(Inputs(qkv, bias, mask), heads=1, dropout=0.0, interpret=True)

    def with_gradient(bias: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        out, back = jax.vjp(lambda x: output(x, bias), qkv)
        return out, *back(jnp.ones_like(out))

    for x, y in zip(with_gradient(None), with_gradient(jnp.zeros(3 * 64)), strict=True):
        assert np.array_equal(x, y)


def test_documents_and_pads_are_isolated_exactly(qkv):
    """Catches a mask that is only nearly zero: the derivative of one document's output by another's
    input, pads included, is 0 to the bit."""
    q, k, v = qkv

    def output(q, k, v):
        return attention(q, k, v, MASK)[0, :, 0, 0]

    for jacobian in jax.jit(jax.jacrev(output, argnums=(0, 1, 2)))(q, k, v):
        actual_LxL = np.abs(np.asarray(jacobian)[:, 0]).max(axis=(-1, -2))
        other = DOCS[0][:, None] != DOCS[0][None, :]
        assert actual_LxL[other].max() == 0
        assert np.isfinite(actual_LxL).all()
        assert actual_LxL[~other].max() > 0


def test_a_row_of_pads_is_finite(qkv):
    """Catches 0 / 0 in the empty rows that fill up the last held-out batch."""
    q, k, v = qkv
    mask = Mask(jnp.zeros((B, L), jnp.int32))
    out, gradient = jax.value_and_grad(lambda q: attention(q, k, v, mask).sum())(q)
    assert np.isfinite(out)
    assert np.isfinite(gradient).all()


def test_low_precision_inputs_still_have_a_float32_softmax(qkv):
    """Catches scores or softmax in bfloat16: the weights of equal values must add to 1 far closer
    than bfloat16 can count over many keys."""
    q, k, _ = (jnp.asarray(x, jnp.bfloat16) for x in qkv)
    ones = jnp.ones((B, L, H, C), jnp.bfloat16)
    out = attention(q, k, ones, MASK)
    assert out.dtype == jnp.bfloat16
    text = str(jax.make_jaxpr(attention)(q, k, ones, MASK))
    exponentials = [line for line in text.splitlines() if " exp " in line]
    assert exponentials
    assert all("f32[" in line.split("=")[0] for line in exponentials)


def test_dropout_is_on_the_weights_and_unbiased():
    """Catches dropout of the output instead of the weights, a softmax after it, one mask for all
    heads, and a missing 1 / (1 - rate)."""
    rows, length, rate = 64, 16, 0.25
    mask = Mask(jnp.ones((rows, length), jnp.int32))
    draw = np.random.default_rng(1)
    q, k = draw.normal(size=(2, rows, length, H, length)).astype(np.float32)
    # Values that are unit vectors make the output the weights themselves.
    v = np.broadcast_to(np.eye(length, dtype=np.float32)[:, None], (rows, length, H, length))
    noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(rows))
    full = np.asarray(attention(q, k, v, mask))
    out = np.asarray(attention(q, k, v, mask, dropout=rate, noise=noise))
    kept = out != 0
    assert np.abs(out[kept] * (1 - rate) - full[kept]).max() < 1e-6
    n = kept.size
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    # Heads, queries and rows draw on their own.
    for other in (kept[:, :, ::-1], np.roll(kept, 1, axis=1), np.roll(kept, 1, axis=0)):
        agree = (kept == other).mean()
        assert abs(agree - (1 - 2 * rate * (1 - rate))) < 0.02
    assert np.array_equal(np.asarray(attention(q, k, v, mask, dropout=rate, noise=None)), full)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_scores_are_those_of_the_einsum(dtype):
    """Catches heads, keys or channels exchanged in the keys' gradient, and cotangents rounded before their product."""
    draw = np.random.default_rng(0)
    q, k = (jnp.asarray(draw.normal(size=(2, length, 3, 5)), dtype) for length in (6, 8))
    cotangent = jnp.asarray(draw.normal(size=(2, 3, 6, 8)), jnp.float32)

    def einsum(q: jax.Array, k: jax.Array) -> jax.Array:
        return jnp.einsum("blhc,bmhc->bhlm", q, k, preferred_element_type=jnp.float32)

    _, expected = jax.vjp(einsum, q, k)
    _, by_hand = jax.vjp(plain._SCORES, q, k)
    for mine, other in zip(by_hand(cotangent), expected(cotangent), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=1e-5, atol=1e-5
        )
