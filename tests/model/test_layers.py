"""The building blocks: LayerNorm's epsilon, initialisers, the padding of the vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.model import layers
from electra_jax.model.backbone import Embeddings, EmbeddingsSpec
from electra_jax.model.initial import truncated_normal
from electra_jax.model.tokens import Tokens


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_layer_norm_epsilon(scale: float):
    """Catches flax's default epsilon 1e-6, which halves an input of variance 1e-8 a tenfold."""
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32) * scale + 2 * scale
    module = layers.layer_norm("float32")
    params = {"scale": jnp.full(64, 1.5), "bias": jnp.full(64, 0.25)}
    out = np.asarray(module.apply({"params": params}, x))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * 1.5 + 0.25
    assert np.abs(out - expected).max() < 1e-5


def test_layer_norm_of_a_large_mean():
    """Catches the fast variance E[x2] - E[x]2, which cancels in float32."""
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32) + 1000
    out = np.asarray(layers.layer_norm("float32").apply(_plain(64), x))
    wide = x.astype(np.float64)
    assert np.abs(out - stats.zscore(wide, axis=-1)).max() < 2e-3


def test_layer_norm_statistics_are_float32_at_low_precision():
    """Catches mean and variance counted in bfloat16."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4096)) + 3, jnp.bfloat16)
    out = layers.layer_norm("bfloat16").apply(_plain(4096), x)
    assert out.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    assert np.abs(np.asarray(out, np.float64) - stats.zscore(wide, axis=-1)).max() < 0.02


def _plain(width: int) -> dict:
    return {"params": {"scale": jnp.ones(width), "bias": jnp.zeros(width)}}


def test_truncated_normal_is_tensorflows():
    """Catches a plain normal, and a cut that is followed by rescaling to the full deviation: cut at
    two deviations, the deviation is 0.8796 of what was asked."""
    init = truncated_normal(0.02)
    x = np.asarray(init(jax.random.key(0), (512, 512)), np.float64).ravel()
    assert np.abs(x).max() <= 0.04
    assert np.abs(x).max() > 0.0399
    assert x.std() == pytest.approx(0.02 * 0.87962566, rel=0.005)
    assert stats.kstest(x[::17] / 0.02, stats.truncnorm(-2, 2).cdf).pvalue > 1e-6


def test_padded_vocabulary():
    """Catches a vocabulary that fits exactly being padded by another 128."""
    assert [layers.padded_vocab(v) for v in (1, 127, 128, 129, 30522)] == [
        128,
        128,
        128,
        256,
        30592,
    ]


def test_real_rows_do_not_depend_on_the_padding():
    """Catches a table drawn with its padding: runs would differ in every row with the multiple, and
    the padding must be zero to stay out of exports and norms."""

    def words(vocab_size: int) -> np.ndarray:
        spec = EmbeddingsSpec(
            vocab_size=vocab_size,
            positions=4,
            types=2,
            width=8,
            dropout=0.0,
            init_std=0.02,
            dtype="float32",
        )
        made = Embeddings(spec).init(jax.random.key(0), Tokens.single(), None)
        return np.asarray(made["params"]["word"])

    word = words(40)
    assert word.shape == (128, 8)
    assert np.all(word[40:] == 0)
    assert np.all(word[:40].std(axis=1) > 0)
    assert not np.any(np.all(words(128) == 0, axis=1))
