"""Heads: what they may look at, and the original's beam over starts and ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.kinds.qa import EXCLUDED
from electra_jax.ops import noise as noise_ops

B, L, D = 2, 9, 8
BATCH = {
    "docs": jnp.array([[1] * 9, [1] * 6 + [0] * 3]),
    "types": jnp.array([[0, 0, 0] + [1] * 6, [0, 0] + [1] * 4 + [0] * 3]),
    "start": jnp.array([4, 0]),
}
HIDDEN = jnp.asarray(np.random.default_rng(0).standard_normal((B, L, D)), jnp.float32)


def spec(kind: str, style: str, **changes: object) -> HeadSpec:
    return HeadSpec(
        kind=kind, style=style, outputs=2, dropout=0.1, init_std=0.02, dtype="float32", **changes
    )


def run(head: HeadSpec, hidden: jax.Array = HIDDEN, training: bool = False):
    module = kinds.get(head.kind).head(head)
    draw = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(1), HIDDEN, None, BATCH, True))
    params = jax.tree.map(lambda s: 0.3 * draw.standard_normal(s.shape, np.float32), shapes)
    return params, module.apply(params, hidden, None, BATCH, training)


def expected_logits(head: HeadSpec, params: dict, hidden: np.ndarray) -> np.ndarray:
    """The logits of the text heads, written out in numpy."""
    p = {name: (layer["kernel"], layer["bias"]) for name, layer in params["params"].items()}
    linear = lambda x, name: x @ p[name][0] + p[name][1]  # noqa: E731
    x = hidden if head.kind == "tag" else hidden[:, 0]
    if "dense" in p:
        x = linear(x, "dense")
        x = x * (1 + special.erf(x / 2**0.5)) / 2
    return linear(x, "out")


@pytest.mark.parametrize("style", ["hf", "original"])
@pytest.mark.parametrize(
    ("kind", "layers"), [("classify", 2), ("regress", 2), ("choice", 2), ("tag", 1)]
)
def test_what_a_text_head_computes(kind, layers, style):
    """Catches another token than [CLS], tanh (or tanh's GELU) in place of GELU, a layer too many or too few."""
    head = spec(kind, style)
    params, found = run(head)
    given = 1 if kind != "tag" and style == "original" else layers
    assert len(params["params"]) == given
    logits = np.asarray(found["logits"])
    wanted = expected_logits(head, params, np.asarray(HIDDEN, np.float64))
    np.testing.assert_allclose(logits, wanted.reshape(logits.shape), atol=2e-6)


def test_dropout_of_a_text_head():
    """Catches a head without dropout in training, one that drops at prediction, and transformers' before its tagger
    left out."""
    for kind, style, drops in (
        ("classify", "hf", True),
        ("classify", "original", True),
        ("tag", "hf", True),
        ("tag", "original", False),
    ):
        head = spec(kind, style)
        params, plain = run(head)
        noise = noise_ops.for_rows(jax.random.key(3), jnp.arange(B))
        noisy = kinds.get(kind).head(head).apply(params, HIDDEN, noise, BATCH, True)
        same = np.array_equal(np.asarray(noisy["logits"]), np.asarray(plain["logits"]))
        assert same != drops, (kind, style)


def test_the_beam_holds_the_best_starts_and_the_best_ends_of_each():
    """Catches ends that are scored for another start than theirs, and a beam that is not the best."""
    head = spec("qa", "original", beam=3)
    params, found = run(head)
    assert sorted(found) == ["end_score", "end_top", "null", "start", "start_score", "start_top"]
    start = np.asarray(jax.nn.log_softmax(found["start"]))
    for b in range(B):
        assert list(found["start_top"][b]) == list(np.argsort(-start[b], kind="stable")[:3])
    for k in range(3):
        batch = BATCH | {"start": found["start_top"][:, k]}
        said = kinds.get(head.kind).head(head).apply(params, HIDDEN, None, batch, True)["end"]
        end = np.asarray(jax.nn.log_softmax(said))
        for b in range(B):
            best = np.argsort(-end[b], kind="stable")[:3]
            assert list(found["end_top"][b, k]) == list(best)
            np.testing.assert_allclose(found["end_score"][b, k], end[b][best], rtol=1e-5)


def test_only_the_context_and_the_first_token_can_be_an_answer():
    """Catches answers in the question or the padding."""
    _, found = run(spec("qa", "original", joint=False, answerable=False))
    allowed = np.array([[1, 0, 0, 1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1, 0, 0, 0]], bool)
    for name in ("start", "end"):
        assert np.array_equal(np.asarray(found[name]) > EXCLUDED / 2, allowed)
    assert "null" not in found


def test_padding_does_not_change_what_a_span_head_says():
    """Catches a softmax that counts how much a batch happened to be padded."""
    for style in ("hf", "original"):
        _, found = run(spec("qa", style), training=True)
        _, other = run(spec("qa", style), HIDDEN.at[1, 6:].set(100.0), training=True)
        for name in ("start", "end"):
            np.testing.assert_allclose(found[name][1], other[name][1], rtol=1e-6)
