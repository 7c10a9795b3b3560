"""The forward pass against numpy in float64, and what must not change it: remat, precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from electra_jax.learn.arrays import flatten
from electra_jax.model.backbone import Encoder
from electra_jax.model.electra import Dimensions, Electra, MaskedLM
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops

pytestmark = pytest.mark.usefixtures("as_in_a_run")

Params = dict[str, Any]


def dense(p: Params, x: np.ndarray) -> np.ndarray:
    return x @ p["kernel"] + p["bias"]


def norm(p: Params, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return x * special.ndtr(x)


def encode(embeddings: Params, encoder: Params, batch: dict, heads: int) -> np.ndarray:
    """A post-LN BERT, row by row and head by head."""
    rows = []
    inputs = (batch[k] for k in ("ids", "types", "docs", "positions"))
    for ids, types, docs, at in zip(*inputs, strict=True):
        x = embeddings["word"][ids] + embeddings["position"][at] + embeddings["type"][types]
        x = norm(embeddings["norm"], x)
        x = dense(encoder["project"], x) if "project" in encoder else x
        for i in range(sum(name.startswith("layer_") for name in encoder)):
            layer = encoder[f"layer_{i}"]
            q, k, v = (dense(layer[name], x) for name in ("query", "key", "value"))
            mixed = np.zeros_like(x)
            for h in np.split(np.arange(x.shape[-1]), heads):
                scores = q[:, h] @ k[:, h].T / np.sqrt(len(h))
                scores = np.where(docs[:, None] == docs[None, :], scores, -np.inf)
                mixed[:, h] = special.softmax(scores, axis=-1) @ v[:, h]
            x = norm(layer["attention_norm"], x + dense(layer["out"], mixed))
            x = norm(layer["output_norm"], x + dense(layer["down"], gelu(dense(layer["up"], x))))
        rows.append(x)
    return np.stack(rows)


def apply(dims: Dimensions, params: Params, tiny, noise=None, module=Electra) -> tuple:
    tokens, model = Tokens.of(tiny.batch), module(dims)
    made = model.apply({"params": params}, tokens, tiny.chosen, noise, method=module.generate)
    if module is MaskedLM:
        return made
    return made, model.apply({"params": params}, tokens, noise, method=Electra.discriminate)


@pytest.mark.parametrize("tying", ["embeddings", "none", "all"])
def test_forward_pass_in_numpy(tiny, dims, tying: str):
    """Catches pre-LN, a wrong epsilon or GELU, heads that interleave, a missing projection or bias,
    a head before the gather that takes other positions, and embeddings of the wrong network."""
    d = dims(tying=tying)
    params = tiny.init(d)
    (hidden, table, bias), logits = jax.jit(lambda p: apply(d, p, tiny))(params)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    ours = p["generator_embeddings"] if tying == "none" else p["embeddings"]
    net = p["discriminator"] if tying == "all" else p["generator"]
    encoded = encode(ours, net, tiny.batch, 2 if tying == "all" else 1)
    chosen = np.stack([row[at] for row, at in zip(encoded, tiny.chosen, strict=True)])
    head = p["generator_head"]
    expected = norm(head["norm"], gelu(dense(head["dense"], chosen)))
    assert np.abs(hidden - expected).max() < 1e-4
    assert np.array_equal(table, np.float32(ours["word"]))
    assert np.array_equal(bias, np.float32(head["bias"]))
    encoded = encode(p["embeddings"], p["discriminator"], tiny.batch, 2)
    head = p["discriminator_head"]
    expected = dense(head["out"], gelu(dense(head["dense"], encoded)))[..., 0]
    assert np.abs(logits - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["attention", "layer"])
def test_remat_changes_nothing(tiny, dims, policy):
    """Catches a recomputation with other dropout, whose gradient belongs to another loss."""
    params = tiny.init(dims())["discriminator"]
    x = np.random.default_rng(0).normal(size=(2, 10, 12)).astype(np.float32)

    def loss(params: Params, remat: str, rate: float) -> jax.Array:
        d = dims(remat=remat, dropout=rate, attention_dropout=rate, layers=1)
        noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(2))
        tokens = Tokens.of(tiny.batch)
        out = Encoder(d.discriminator).apply({"params": params}, x, tokens, noise)
        return jnp.sum(out**3)

    both = jax.jit(jax.value_and_grad(loss), static_argnums=(1, 2))
    plain, remat = both(params, "none", 0.2), both(params, policy, 0.2)
    assert float(remat[0]) == pytest.approx(float(plain[0]), rel=1e-6)
    for name, x in flatten(plain[1]).items():
        y = flatten(remat[1])[name]
        # A key's bias has no gradient but rounding, which depends on the order of sums.
        assert np.abs(x - y).max() <= 1e-5 * np.abs(x).max() + 1e-5, name


def test_remat_recomputes(tiny, dims):
    """Catches an option that is read and ignored."""
    texts = [
        str(jax.make_jaxpr(jax.grad(lambda p, d=d: jnp.sum(apply(d, p, tiny)[1])))(tiny.params))
        for d in (dims(), dims(remat="attention"), dims(remat="layer"))
    ]
    assert [text.count("remat") > 0 for text in texts] == [False, True, True]


def test_bfloat16_is_close_and_leaves_the_rest_in_float32(tiny, dims):
    """Catches parameters, logits or the residual stream rounded where the config says float32."""
    kind = {"layers": 1, "dtype": "bfloat16"}
    params = tiny.init(dims(layers=1))
    exact = jax.jit(lambda p: apply(dims(layers=1), p, tiny))(params)
    (hidden, _, bias), logits = jax.jit(lambda p: apply(dims(**kind), p, tiny))(params)
    assert hidden.dtype == jnp.bfloat16
    assert logits.dtype == bias.dtype == jnp.float32
    assert np.abs(np.asarray(hidden, np.float32) - exact[0][0]).max() < 0.1
    assert 0 < np.abs(logits - exact[1]).max() < 0.1

    def stream(residual: str) -> Any:
        d = dims(**kind, residual_dtype=residual)
        encoder = Encoder(d.discriminator)
        x = jnp.zeros((2, 10, 12), residual)
        weights = {"params": params["discriminator"]}
        return jax.eval_shape(lambda: encoder.apply(weights, x, Tokens.of(tiny.batch), None))

    assert stream("float32").dtype == jnp.float32
    assert stream("bfloat16").dtype == jnp.bfloat16


@pytest.mark.parametrize("module", [Electra, MaskedLM])
def test_every_site_of_dropout_has_its_own_noise(tiny, dims, module, monkeypatch):
    """Catches a site forgotten, and two sites (two layers, attention and output, embeddings and a
    layer) that drop the same elements."""
    d = dims(dropout=0.1, attention_dropout=0.2)
    params = tiny.init(d, module)
    seen: list[tuple[float, int, tuple[jax.Array, jax.Array]]] = []

    def recorded(x, rate, noise):
        seen.append((rate, x.ndim, tuple(noise)))
        return x

    monkeypatch.setattr(noise_ops, "dropout", recorded)

    def keys(params: Params) -> list:
        seen.clear()
        noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(2))
        apply(d, params, tiny, noise, module)
        return [noise for _, _, noise in seen]

    drawn = np.array(jax.jit(keys)(params))  # [sites, 2, B]
    networks = 2 if module is Electra else 1
    assert len(drawn) == networks * (1 + 3 * d.spec.layers)
    rates = sorted((rate, ndim) for rate, ndim, _ in seen)
    hidden, attention = networks * (1 + 2 * d.spec.layers), networks * d.spec.layers
    assert rates == [(0.1, 3)] * hidden + [(0.2, 4)] * attention
    # The two networks are told apart by the key that the objective gives them.
    once = drawn[: len(drawn) // networks]
    assert len(np.unique(once.transpose(0, 2, 1).reshape(-1, 2), axis=0)) == 2 * len(once)
