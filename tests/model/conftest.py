"""A tiny ELECTRA with every part in it."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.model.electra import Dimensions, Electra, ModelSpec

SPEC = ModelSpec(
    layers=2,
    width=16,
    heads=2,
    ffn=48,
    embedding=12,
    positions=10,
    types=2,
    generator_size=0.5,
    generator_layers=1.0,
    tying="embeddings",
    dropout=0.0,
    attention_dropout=0.0,
    init_std=0.02,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
VOCAB = 40


@pytest.fixture(scope="session")
def dims() -> Callable[..., Dimensions]:
    """Tiny dimensions, with some fields of the model section changed."""
    return lambda **changes: Dimensions(dataclasses.replace(SPEC, **changes), VOCAB)


@pytest.fixture(scope="session")
def tiny(dims) -> SimpleNamespace:
    """Dimensions, parameters and a batch of two rows: two documents and padding, one document."""
    draw = np.random.default_rng(0)
    docs = np.array([[1] * 4 + [2] * 3 + [0] * 3, [1] * 10], np.int32)
    batch = {
        "ids": draw.integers(0, VOCAB, (2, 10)).astype(np.int32),
        "types": (np.arange(10) % 3 == 0).astype(np.int32) * np.ones((2, 1), np.int32),
        "docs": docs,
        "positions": np.tile(np.arange(10, dtype=np.int32), (2, 1)),
    }
    chosen = np.array([[1, 5, 0], [9, 2, 4]], np.int32)
    return SimpleNamespace(
        dims=dims(), params=initial(dims()), batch=batch, chosen=chosen, vocab=VOCAB, init=initial
    )


def initial(dims: Dimensions, module: type = Electra) -> dict[str, Any]:
    """Random parameters, so large that every part matters to the output, biases and scales too."""
    shapes = jax.eval_shape(lambda: module(dims).init(jax.random.key(0)))["params"]
    draw = np.random.default_rng(1)

    def filled(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        x = draw.normal(size=shape.shape).astype(np.float32)
        return 1 + 0.1 * x if path[-1].key == "scale" else (0.4 if x.ndim == 2 else 0.1) * x

    return jax.tree_util.tree_map_with_path(filled, shapes)
