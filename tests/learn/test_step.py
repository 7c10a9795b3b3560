"""The train step: numbers written out, accumulation that changes nothing, steps that are skipped."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn import step as steps
from electra_jax.learn.arrays import flatten
from electra_jax.learn.learner import Context, Defaults
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part
from electra_jax.model.electra import ModelSpec
from electra_jax.objective import registry
from electra_jax.ops import noise as noise_ops
from electra_jax.text.tokenizer import SpecialIds

pytestmark = pytest.mark.usefixtures("as_in_a_run")

OPTIM = OptimSpec(
    name="adam",
    peak_lr=0.01,
    warmup=2,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
)
L, POISON, DROPPED = 4, 7, 100


class Line(Defaults):
    """A straight line through the mean id of a row: an objective whose gradient is one line of numpy.

    Rows with docs 0 do not count; with DROPPED ids, half of the rows are dropped by their noise; a
    row with docs POISON makes the loss infinite.
    """

    def init(self, key: jax.Array) -> dict:
        return {"line": {"kernel": jax.random.uniform(key, (1, 1)), "bias": jnp.zeros(1)}}

    def carried(self, params: dict) -> dict:
        return {"sum": jnp.ones(2)}

    def carry(self, context: Context, params: dict, sums: dict) -> dict:
        return {"sum": context.carried["sum"] + sums["square"]}

    def prepare(self, batch: dict, keys: dict) -> dict:
        noise = noise_ops.for_rows(keys["mask"], batch["rows"])
        return batch | {"drawn": noise_ops.uniform(noise, noise_ops.count(1))[:, 0]}

    def totals(self, batch: dict) -> dict:
        return {"rows": jnp.sum(batch["docs"][:, 0] > 0).astype(jnp.float32)}

    def loss(self, context: Context) -> tuple:
        params, batch, totals, keys = context[:4]
        x_B = batch["ids"].mean(axis=1)
        error_B = x_B * params["line"]["kernel"][0, 0] + params["line"]["bias"][0] - 1
        weight_B = (batch["docs"][:, 0] > 0).astype(jnp.float32)
        dropped_B = noise_ops.dropout(x_B, 0.5, noise_ops.for_rows(keys["dropout"], batch["rows"]))
        error_B += jnp.where(batch["ids"][:, 0] >= DROPPED, dropped_B, 0.0)
        square = jnp.sum(error_B**2 * weight_B)
        sums = {
            "square": square,
            "drawn": jnp.sum(batch["drawn"]),
            "dropout": jnp.sum(dropped_B),
            "step": jnp.sum(batch["step"]),
        }
        poisoned = jnp.any(batch["docs"] == POISON)
        return jnp.where(poisoned, jnp.inf, 1.0) * square / totals["rows"], sums


def line_batch(seed: int = 0, poison: bool = False) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    docs = np.ones((8, L), np.int32)
    docs[5:] = 0
    docs[0] = POISON if poison else 1
    return {"ids": draw.integers(0, 5, (8, L)).astype(np.int32), "docs": docs}


def make_step(
    learner: Any = None, spec: OptimSpec = OPTIM, accumulation: int = 2, seed: int = 3
) -> Callable[..., tuple[dict, dict]]:
    """The step of a learner, by default of the line, in one part."""
    return steps.make_train_step(
        learner or Line(),
        [Part(optim=spec, steps=10)],
        keys=lambda state: steps.step_keys(seed, state["step"]),
        accumulation=accumulation,
    )


def start_of(learner: Any, spec: OptimSpec, seed: int) -> dict:
    params = learner.init(noise_ops.seed_key(seed))
    return steps.init_state(learner, [Part(optim=spec, steps=10)], params)


@pytest.fixture(scope="module")
def line() -> Callable[..., tuple[dict, dict]]:
    """The jitted step of the line."""
    return jax.jit(make_step())


def start() -> dict:
    return start_of(Line(), OPTIM, 3)


def test_three_steps_in_numpy(line):
    """Catches the order of clipping, Adam, decay and rate; the rate of another step; a mean over
    all rows instead of those that count."""
    state = start()
    kernel = float(state["params"]["line"]["kernel"][0, 0])
    w, m, v, squares = np.array([kernel, 0.0]), np.zeros(2), np.zeros(2), 0.0
    for t in range(3):
        batch = line_batch(t)
        state, sums = line(state, batch)
        x = batch["ids"].mean(1)[:5]
        error = x * w[0] + w[1] - 1
        squares += error @ error
        assert sums["step"] == 8 * t  # of every row, those that do not count included
        grad = np.array([2 * error @ x, 2 * error.sum()]) / 5
        norm = np.linalg.norm(grad)
        rate = 0.01 * (1 - t / 10) * min(1, t / 2)
        assert float(sums["step/total_loss"]) == pytest.approx((error**2).mean(), rel=1e-5)
        assert float(sums["step/grad_norm"]) == pytest.approx(norm, rel=1e-5)
        assert float(sums["step/learning_rate"]) == pytest.approx(rate, rel=1e-5, abs=1e-12)
        grad = grad / max(norm, 1)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        w = w - rate * (m / (np.sqrt(v) + 1e-6) + 0.01 * w * [1, 0])
        found = [state["params"]["line"][leaf].ravel()[0] for leaf in ("kernel", "bias")]
        assert np.allclose(found, w, rtol=1e-5)
    assert int(state["step"]) == 3
    assert np.allclose(state["carried"]["sum"], 1 + squares, rtol=1e-5)


def test_steps_that_are_not_finite_are_skipped_and_counted(line):
    """Catches an infinite loss that reaches parameters or moments, a count that is lost or never
    starts again, and a step number (and so a batch) that is repeated."""
    state, _ = line(start(), line_batch())
    before = jax.device_get({k: state[k] for k in ("params", "opt_state")})
    for run in (1, 2):
        state, sums = line(state, line_batch(poison=True))
        assert not np.isfinite(sums["step/grad_norm"])
        assert int(sums["step/run"]) == int(state["skipped"]["run"]) == run
    after = jax.device_get({k: state[k] for k in ("params", "opt_state")})
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.array_equal(x, y)
    assert int(state["step"]) == 3
    state, sums = line(state, line_batch())
    assert (int(sums["step/run"]), int(sums["step/total"])) == (0, 2)
    assert not np.array_equal(state["params"]["line"]["kernel"], before["params"]["line"]["kernel"])


def test_keys_are_of_the_step_and_the_seed(line):
    """Catches masks that repeat from step to step, that ignore the seed, or that need a stored
    generator to go on from a step."""
    state, first = line(start(), line_batch())
    state, second = line(state, line_batch())
    resumed = start() | {"step": jnp.int32(1)}
    _, again = line(resumed, line_batch())
    other = jax.jit(make_step(seed=4))
    _, seeded = other(start(), line_batch())
    for name in ("drawn", "dropout"):
        values = [float(sums[name]) for sums in (first, second, seeded)]
        assert len(set(values)) == 3, name
        assert float(again[name]) == values[1], name
    keys = steps.step_keys(3, jnp.int32(0))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys.values()}) == 3


def test_a_seed_of_its_own_for_parameters():
    """Catches initial parameters that are the same whatever the seed."""
    first, second = (start_of(Line(), OPTIM, seed) for seed in (0, 1))
    assert first["params"]["line"]["kernel"] != second["params"]["line"]["kernel"]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_of_unequal_weight_add_up(parts: int):
    """Catches denominators of the part (the rows that count are not spread evenly), dropout and
    masks numbered within it, and clipping before the sum."""
    batch = line_batch()
    batch["ids"] += DROPPED
    results = []
    for cut in (1, parts):
        step = jax.jit(make_step(accumulation=cut))
        state, sums = step(start() | {"step": jnp.int32(2)}, batch)
        results.append(flatten({"state": state, "sums": sums}))
    for name, x in results[0].items():
        assert np.allclose(x, results[1][name], rtol=1e-5), name


def test_micro_batches_are_added_up():
    """Catches rows lost or taken twice, a mean where a sum is meant, and rows that leave their
    device: micro-batch m has rows m, m + parts, ..."""
    rows = np.arange(12)
    out = steps.accumulate(
        lambda part: {"sum": jnp.sum(part["x"]), "first": part["x"][0], "n": part["x"].shape[0]},
        {"x": jnp.asarray(rows)},
        3,
    )
    assert int(out["sum"]) == rows.sum()
    assert int(out["first"]) == 0 + 1 + 2
    assert int(out["n"]) == 12


MODEL = ModelSpec(
    layers=1,
    width=16,
    heads=2,
    ffn=32,
    embedding=12,
    positions=16,
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
OBJECTIVE = {
    "name": "electra",
    "mask_prob": 0.15,
    "mask_split": (0.85, 0.15, 0.0),
    "whole_word": False,
    "temperature": 1.0,
    "disallow_correct": False,
    "uniform_generator": False,
    "generator_weight": 1.0,
    "discriminator_weight": 50.0,
}


def electra(dropout: float) -> Any:
    model = dataclasses.replace(MODEL, dropout=dropout, attention_dropout=dropout)
    return registry.make(OBJECTIVE, model, 40, SpecialIds(0, 1, 2, 3, 4), 16)


def text_batch() -> dict[str, np.ndarray]:
    """Rows from full to nearly empty, so that the parts of a batch have unequal denominators."""
    draw = np.random.default_rng(0)
    lengths = np.array([16, 3, 16, 16, 5, 12, 16, 2])
    docs = (np.arange(16) < lengths[:, None]).astype(np.int32)
    ids = draw.integers(5, 40, docs.shape).astype(np.int32) * docs
    ids[:, 0] = 2
    at = np.tile(np.arange(16, dtype=np.int32), (8, 1))
    return {"ids": ids, "types": at // 8, "docs": docs, "word_starts": docs, "positions": at}


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_accumulation_equals_the_large_batch(dropout: float):
    """Catches denominators of the micro-batch, dropout, masks or samples numbered within it, and
    metrics of the last one alone; parts of 8, 4 and 2 rows with uneven padding."""
    objective = electra(dropout)
    spec = dataclasses.replace(OPTIM, warmup=0, peak_lr=1e-3)
    first = jax.device_get(jax.jit(lambda: start_of(objective, spec, 0))())
    results = []
    for parts in (1, 2, 4) if dropout else (1, 4):
        step = jax.jit(make_step(objective, spec, parts, 0))
        state, sums = step(first, text_batch())
        results.append(jax.device_get((state, sums)))
    (whole, sums), *others = results
    # The denominators of the parts do differ.
    assert sums["valid"] == 86
    for state, found in others:
        for name in ("masked", "valid", "replaced", "disc_correct", "mlm_correct", "called"):
            assert found[name] == sums[name], name
        for name in ("mlm_loss", "disc_loss", "entropy", "step/total_loss", "step/grad_norm"):
            assert found[name] == pytest.approx(float(sums[name]), rel=2e-6), name
        # Moments are the gradients; the largest of a tensor is the measure of its rounding.
        moments = flatten(state["opt_state"])
        for path, x in flatten(whole["opt_state"]).items():
            if "key/bias" not in path:  # its gradient is zero but for rounding
                assert np.abs(moments[path] - x).max() <= 2e-5 * np.abs(x).max(), path
        params = flatten(state["params"])
        for path, x in flatten(whole["params"]).items():
            assert np.abs(params[path] - x).max() < 3e-6, path
