"""Heads: what they may look at, and the original's beam over starts and ends."""

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.kinds.qa import EXCLUDED

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
