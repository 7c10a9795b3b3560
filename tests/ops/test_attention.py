"""Attention: equal to softmax written out, within documents only, with dropout on the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.ops import attention as attention_ops
from electra_jax.ops import noise as noise_ops

attention = jax.jit(attention_ops.attention, static_argnames=("dropout", "window", "causal"))

B, L, H, C = 2, 12, 2, 4
DOCS = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12], np.int32)


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
    out = attention(q, k, v, jnp.asarray(DOCS), **options)
    expected = np.einsum("bhlm,bmhc->blhc", weights(q, k, visible(**options)), v)
    assert np.abs(np.asarray(out) - expected).max() < 2e-6


def test_documents_and_pads_are_isolated_exactly(qkv):
    """Catches a mask that is only nearly zero: the derivative of one document's output by another's
    input, pads included, is 0 to the bit."""
    q, k, v = qkv

    def output(q, k, v):
        return attention(q, k, v, jnp.asarray(DOCS))[0, :, 0, 0]

    for jacobian in jax.jit(jax.jacrev(output, argnums=(0, 1, 2)))(q, k, v):
        found_LxL = np.abs(np.asarray(jacobian)[:, 0]).max(axis=(-1, -2))
        other = DOCS[0][:, None] != DOCS[0][None, :]
        assert found_LxL[other].max() == 0
        assert np.isfinite(found_LxL).all()
        assert found_LxL[~other].max() > 0


def test_a_row_of_pads_is_finite(qkv):
    """Catches 0 / 0 in the empty rows that fill up the last held-out batch."""
    q, k, v = qkv
    docs = jnp.zeros((B, L), jnp.int32)
    out, gradient = jax.value_and_grad(lambda q: attention(q, k, v, docs).sum())(q)
    assert np.isfinite(out)
    assert np.isfinite(gradient).all()


def test_low_precision_inputs_still_have_a_float32_softmax(qkv):
    """Catches scores or softmax in bfloat16: the weights of equal values must add to 1 far closer
    than bfloat16 can count over many keys."""
    q, k, _ = (jnp.asarray(x, jnp.bfloat16) for x in qkv)
    ones = jnp.ones((B, L, H, C), jnp.bfloat16)
    out = attention(q, k, ones, jnp.asarray(DOCS))
    assert out.dtype == jnp.bfloat16
    text = str(jax.make_jaxpr(attention)(q, k, ones, jnp.asarray(DOCS)))
    exponentials = [line for line in text.splitlines() if " exp " in line]
    assert exponentials
    assert all("f32[" in line.split("=")[0] for line in exponentials)


def test_dropout_is_on_the_weights_and_unbiased():
    """Catches dropout of the output instead of the weights, a softmax after it, one mask for all
    heads, and a missing 1 / (1 - rate)."""
    rows, length, rate = 64, 16, 0.25
    docs = jnp.ones((rows, length), jnp.int32)
    draw = np.random.default_rng(1)
    q, k = draw.normal(size=(2, rows, length, H, length)).astype(np.float32)
    # Values that are unit vectors make the output the weights themselves.
    v = np.broadcast_to(np.eye(length, dtype=np.float32)[:, None], (rows, length, H, length))
    noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(rows))
    full = np.asarray(attention(q, k, v, docs))
    out = np.asarray(attention(q, k, v, docs, dropout=rate, noise=noise))
    kept = out != 0
    assert np.abs(out[kept] * (1 - rate) - full[kept]).max() < 1e-6
    n = kept.size
    assert abs(kept.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    # Heads, queries and rows draw on their own.
    for other in (kept[:, :, ::-1], np.roll(kept, 1, axis=1), np.roll(kept, 1, axis=0)):
        agree = (kept == other).mean()
        assert abs(agree - (1 - 2 * rate * (1 - rate))) < 0.02
    assert np.array_equal(np.asarray(attention(q, k, v, docs, dropout=rate, noise=None)), full)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_scores_are_those_of_the_einsum(dtype):
    """Catches heads, keys or channels exchanged in the keys' gradient, and slopes rounded before their product."""
    draw = np.random.default_rng(0)
    q, k = (jnp.asarray(draw.normal(size=(2, length, 3, 5)), dtype) for length in (6, 8))
    slope = jnp.asarray(draw.normal(size=(2, 3, 6, 8)), jnp.float32)

    def plain(q: jax.Array, k: jax.Array) -> jax.Array:
        return jnp.einsum("blhc,bmhc->bhlm", q, k, preferred_element_type=jnp.float32)

    _, of_expected = jax.vjp(plain, q, k)
    _, of_found = jax.vjp(attention_ops._scores, q, k)
    for mine, other in zip(of_found(slope), of_expected(slope), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype("float32"), other.astype("float32"), rtol=1e-5, atol=1e-5
        )
