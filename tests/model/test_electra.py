"""Both networks: parameter counts, trees of the tying modes, initialisers, what is shared and seen."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.model.electra import (
    Dimensions,
    Electra,
    MaskedLM,
    ModelSpec,
    count_parameters,
    is_vocabulary,
)
from electra_jax.model.tokens import Tokens
from electra_jax.spec import UserError, from_config, load_config


def shapes(dims: Dimensions, module: type = Electra) -> dict[str, Any]:
    return jax.eval_shape(lambda: module(dims).init(jax.random.key(0)))["params"]


@pytest.mark.parametrize(
    ("config", "changes", "count"),
    [
        ("small", {}, 14_196_219),
        ("base", {}, 119_386_427),
        ("large", {}, 354_655_291),
        ("small", {"generator_size": 1.0}, 23_122_875),
    ],
)
def test_parameter_counts_of_the_paper(config: str, changes: dict, count: int):
    """Catches a missing or extra matrix or bias anywhere, and padding that is counted."""
    section = load_config(config).model.to_dict() | changes
    dims = Dimensions(from_config(ModelSpec, section, "model"), 30522)
    assert count_parameters(shapes(dims), dims) == count


NAMES = ("attention_norm", "down", "key", "out", "output_norm", "query", "up", "value")
EMBEDDINGS = {"norm", "position", "type", "word"}


def test_trees_of_the_tying_modes(dims):
    """Catches a network that quietly gets its own copy of what it should share, or shares too much."""
    joint = shapes(dims())
    assert set(joint) == {
        "embeddings",
        "discriminator",
        "discriminator_head",
        "generator",
        "generator_head",
    }
    assert set(joint["embeddings"]) == EMBEDDINGS
    assert joint["embeddings"]["word"].shape == (128, 12)
    for net, width in (("discriminator", 16), ("generator", 8)):
        assert set(joint[net]) == {"project", "layer_0", "layer_1"}
        assert set(joint[net]["layer_0"]) == set(NAMES)
        assert joint[net]["project"]["kernel"].shape == (12, width)
    assert joint["generator"]["layer_1"]["up"]["kernel"].shape == (8, 32)
    assert joint["discriminator"]["layer_1"]["up"]["kernel"].shape == (16, 48)
    assert joint["generator_head"]["dense"]["kernel"].shape == (8, 12)

    untied = shapes(dims(tying="none"))
    assert set(untied) == set(joint) | {"generator_embeddings"}
    assert set(untied["generator_embeddings"]) == EMBEDDINGS
    assert untied["generator_embeddings"]["word"].shape == (128, 8)
    assert "project" not in untied["generator"]
    assert untied["generator_head"]["dense"]["kernel"].shape == (8, 8)

    tied = shapes(dims(tying="all"))
    assert set(tied) == set(joint) - {"generator"}
    assert tied["generator_head"]["dense"]["kernel"].shape == (16, 12)

    plain = shapes(dims(), MaskedLM)
    assert set(plain) == {"embeddings", "encoder", "head"}
    assert plain["encoder"]["layer_0"]["up"]["kernel"].shape == (16, 48)
    assert "project" not in shapes(dims(embedding=16))["discriminator"]


def test_the_generators_dimensions(dims):
    """Catches heads = ratio x heads, a truncated width, and a depth that ignores its ratio."""
    base = Dimensions(from_config(ModelSpec, load_config("base").model.to_dict(), "model"), 30522)
    layer = base.generator.stack[0]
    assert (layer.width, layer.ffn, layer.heads) == (256, 1024, 4)
    small = dims(width=256, heads=4, generator_size=0.25, generator_layers=0.5, layers=12)
    assert (small.generator.stack[0].heads, small.generator.layers) == (1, 6)


@pytest.fixture(scope="module")
def fresh(dims) -> dict[str, np.ndarray]:
    """Parameters by path as training starts with them, wide enough to measure."""
    d = dims(layers=1, width=128, ffn=256, embedding=64, positions=64)
    init = jax.jit(lambda: Electra(d).init(jax.random.key(0)))
    return {name: np.asarray(x) for name, x in flatten(init()["params"]).items()}


def test_initialisers(fresh):
    """Catches a default initialiser left in place: biases 0, scales 1, both projections and the
    discriminator's last layer glorot-uniform, all else a normal cut at two deviations."""
    for name, x in fresh.items():
        leaf = name.rpartition("/")[2]
        if leaf in ("bias", "scale"):
            assert np.all(x == (leaf == "scale")), name
        elif name.endswith("project/kernel") or name == "discriminator_head/out/kernel":
            limit = np.sqrt(6 / sum(x.shape))
            assert 0.9 * limit < np.abs(x).max() <= limit, name
            assert x.std() == pytest.approx(limit / np.sqrt(3), rel=0.15), name
        else:
            real = x[:40] if leaf == "word" else x
            assert 0.035 < np.abs(real).max() <= 0.04, name
            assert real.std() == pytest.approx(0.02 * 0.8796, rel=0.1), name
    assert np.all(fresh["embeddings/word"][40:] == 0)
    kernels = [x for name, x in fresh.items() if x.ndim == 2 and x.size > 1000]
    firsts = {float(x[0, 0]) for x in kernels}
    assert len(firsts) == len(kernels)  # no two drawn from one key


def discriminate(tiny, params, **changes) -> jax.Array:
    tokens = Tokens.of(tiny.batch | changes)
    return Electra(tiny.dims).apply({"params": params}, tokens, method=Electra.discriminate)


def test_nothing_crosses_documents_or_comes_from_pads(tiny):
    """Catches a mask lost on the way to attention: changing the second document, or the ids under
    padding, changes no bit of the first document's outputs."""
    run = jax.jit(lambda ids: discriminate(tiny, tiny.params, ids=ids))
    ids, docs = tiny.batch["ids"], tiny.batch["docs"]
    before = np.asarray(run(ids))
    for changed in (2, 0):
        other = np.where(docs == changed, (ids + 7) % tiny.vocab, ids).astype(np.int32)
        after = np.asarray(run(other))
        assert np.array_equal(after[docs == 1], before[docs == 1])
        assert np.all(after[docs == changed] != before[docs == changed])


def test_positions_types_and_order_matter(tiny):
    """Catches inputs that are accepted and dropped."""
    run = jax.jit(lambda batch: discriminate(tiny, tiny.params, **batch))
    before = np.asarray(run(tiny.batch))
    for name in ("types", "positions"):
        changed = tiny.batch[name].copy()
        changed[0, 2] = 1 - changed[0, 2] if name == "types" else 9
        after = np.asarray(run(tiny.batch | {name: changed}))
        assert np.all(np.abs(after[0, :4] - before[0, :4]) > 1e-4), name
        assert np.abs(after[1] - before[1]).max() < 1e-5


def test_vocabulary_parameters(dims):
    """Catches an exported or counted parameter with padded rows that nobody cuts."""
    for tying in ("embeddings", "none", "all"):
        flat = flatten(shapes(dims(tying=tying)))
        padded = {name for name, s in flat.items() if 128 in s.shape[:1]}
        assert padded == {name for name in flat if is_vocabulary(tuple(name.split("/")))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tying": "al"}, "Did you mean 'all'"),
        ({"dtype": "float16"}, "model.dtype"),
        ({"width": 15}, "model.width=15 is not a multiple of model.heads=2"),
        ({"dropout": 1.0}, "model.dropout=1.0 must be in"),
        ({"layers": 0}, "model.layers=0 must be at least 1"),
        ({"generator_size": 0.001}, "leave the generator without width or layers"),
        ({"width": 258, "generator_size": 0.5}, "which its 2 heads"),
    ],
)
def test_impossible_models_are_refused(
    dims: Callable[..., Dimensions], changes: dict, message: str
):
    """Catches a dimension that only fails inside a matmul, with shapes nobody asked for."""
    with pytest.raises(UserError, match=message):
        dims(**changes)
