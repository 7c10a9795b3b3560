"""A tiny model section and rows with every kind of token, for the objectives' tests."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.learner import Context
from electra_jax.model.electra import ModelSpec
from electra_jax.objective import registry
from electra_jax.text.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
VOCAB, LENGTH, ROWS = 40, 16, 6
MODEL = {
    "layers": 1,
    "width": 16,
    "heads": 2,
    "ffn": 32,
    "embedding": 12,
    "positions": LENGTH,
    "types": 2,
    "generator_size": 0.5,
    "generator_layers": 1.0,
    "tying": "embeddings",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "init_std": 0.02,
    "dtype": "float32",
    "residual_dtype": "float32",
    "remat": "none",
}
MLM = {"mask_prob": 0.3, "mask_split": (0.85, 0.15, 0.0), "whole_word": False}
ELECTRA = MLM | {
    "temperature": 1.0,
    "disallow_correct": False,
    "uniform_generator": False,
    "generator_weight": 1.0,
    "discriminator_weight": 50.0,
}


@pytest.fixture(scope="session")
def special() -> SpecialIds:
    """Ids 0 to 4."""
    return SPECIAL


@pytest.fixture(scope="session")
def make_objective() -> Callable[..., Any]:
    """An objective by name, with some of its options, and some of the model's, changed."""

    def make(name: str = "electra", model: dict[str, Any] | None = None, **changes: Any) -> Any:
        section = {"name": name} | ELECTRA | changes
        return registry.make(section, ModelSpec(**MODEL | (model or {})), VOCAB, SPECIAL, LENGTH)

    return make


@pytest.fixture(scope="session")
def batch() -> dict[str, np.ndarray]:
    """Six rows: two full, three with more and more padding, one empty."""
    draw = np.random.default_rng(0)
    ids = draw.integers(5, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    ids[:, 3] = SPECIAL.unk
    docs = np.ones((ROWS, LENGTH), np.int32)
    for row, length in enumerate((16, 16, 12, 9, 5, 0)):
        docs[row, length:] = 0
        ids[row, length:] = SPECIAL.pad
        if length:
            ids[row, 0] = SPECIAL.cls
            ids[row, [length // 2, length - 1]] = SPECIAL.sep
    return {
        "ids": ids,
        "types": np.tile((np.arange(LENGTH) >= LENGTH // 2).astype(np.int32), (ROWS, 1)),
        "docs": docs,
        "word_starts": np.ones((ROWS, LENGTH), np.int32) * (docs > 0),
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1)),
        "rows": np.arange(ROWS, dtype=np.int32),
    }


@pytest.fixture(scope="session")
def random_params() -> Callable[[Any], dict[str, Any]]:
    """Large random parameters of an objective, so that predictions differ from token to token."""

    def make(objective: Any) -> dict[str, Any]:
        draw = np.random.default_rng(1)

        def filled(path: tuple[Any, ...], s: jax.ShapeDtypeStruct) -> np.ndarray:
            x = draw.normal(size=s.shape).astype(np.float32)
            if path[-1].key == "scale":
                return 1 + 0.1 * x
            x *= 0.4 if x.ndim == 2 else 0.1
            if s.shape[0] == 128:
                x[VOCAB:] = 0
            return x

        shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
        return jax.tree_util.tree_map_with_path(filled, shapes)

    return make


@pytest.fixture(scope="session")
def there(root: Path) -> ModuleType:
    """in_torch.py, the networks in PyTorch."""
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("in_torch", root / "tests/objective/in_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def keys() -> dict[str, jax.Array]:
    """Keys of one step."""
    names = ("mask", "sample", "dropout")
    return dict(zip(names, jax.random.split(jax.random.key(7), 3), strict=True))


@pytest.fixture(scope="session")
def evaluated(batch, keys, random_params) -> Callable[[Any], dict[str, Any]]:
    """Corruption and evaluation of an objective on the batch, as numpy."""

    @functools.cache
    def compiled(objective: Any) -> Any:
        def both(params: Any) -> Any:
            corrupted = objective.prepare(jax.tree.map(jnp.asarray, batch), keys)
            totals = objective.totals(corrupted)
            context = Context(params, corrupted, totals, keys, jnp.int32(0), {})
            return corrupted, totals, *objective.evaluate(context)

        return jax.jit(both)

    def run(objective: Any, params: Any = None) -> dict[str, Any]:
        params = random_params(objective) if params is None else params
        corrupted, totals, sums, tokens = jax.device_get(compiled(objective)(params))
        return {"batch": corrupted, "totals": totals, "sums": sums, **tokens}

    return run
