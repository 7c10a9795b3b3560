"""What the conversion tests share: dimensions by size, random trees, and rows of real text."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.train import arrays

TINY = ModelSpec(
    layers=2,
    width=32,
    heads=2,
    ffn=64,
    embedding=16,
    positions=40,
    types=2,
    generator_size=0.5,
    generator_layers=1.0,
    tying="embeddings",
    dropout=0.1,
    attention_dropout=0.1,
    init_std=0.02,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
SMALL = replace(
    TINY,
    layers=12,
    width=256,
    heads=4,
    ffn=1024,
    embedding=128,
    positions=512,
    generator_size=0.25,
)
BASE = replace(SMALL, width=768, heads=12, ffn=3072, embedding=768, generator_size=1 / 3)
LARGE = replace(SMALL, layers=24, width=1024, heads=16, ffn=4096, embedding=1024)
SIZES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE}


@pytest.fixture(scope="session")
def make_dims() -> Callable[..., Dimensions]:
    """size ("tiny", "small", "base", "large"), tying, vocabulary, changed fields -> Dimensions."""

    def make(
        size: str = "tiny", tying: str = "embeddings", vocab_size: int = 100, **changes: object
    ) -> Dimensions:
        return Dimensions(replace(SIZES[size], tying=tying, **changes), vocab_size)

    return make


@pytest.fixture(scope="session")
def initial() -> Callable[..., dict[str, np.ndarray]]:
    """Dimensions, seed -> freshly initialised flat parameters, biases and norms moved off 0 and 1.

    A bias left at zero, or a scale left at one, would hide that it went to the wrong place.
    """

    def init(dims: Dimensions, seed: int = 0, module: type = Electra) -> dict[str, np.ndarray]:
        ids = jnp.zeros((1, 1), jnp.int32)
        tree = jax.jit(module(dims).init)(jax.random.key(seed), ids)["params"]
        rng = np.random.default_rng(seed)
        flat = {}
        for name, x in arrays.flatten(tree).items():
            value = np.array(x)
            if name.rpartition("/")[2] in ("bias", "scale"):
                real = value[: dims.vocab_size]
                real += rng.normal(scale=0.02, size=real.shape).astype(np.float32)
            flat[name] = value
        return flat

    return init
