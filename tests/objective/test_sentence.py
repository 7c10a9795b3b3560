"""A sentence objective beside any other: which rows change, how, and what the head learns from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.learner import Context
from electra_jax.learn.step import step_keys
from electra_jax.model.backbone import Encoder
from electra_jax.model.tokens import Tokens
from electra_jax.objective import registry, sentence
from electra_jax.ops import noise as noise_ops
from electra_jax.spec import UserError

VOCAB, LENGTH, ROWS = 40, 16, 24
CHANGED = ("ids", "types", "docs", "word_starts")


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Rows of two segments, some of one, one of padding alone."""
    draw = np.random.default_rng(0)
    out = {name: np.zeros((ROWS, LENGTH), np.int32) for name in CHANGED}
    for r in range(ROWS):
        a = draw.integers(1, 9)
        b = draw.integers(1, LENGTH - 2 - a) if r < 10 else LENGTH - 3 - a
        if r in (3, 4, 9):
            b = 0
        if r == ROWS - 1:
            continue
        first, second = draw.integers(5, VOCAB, a), draw.integers(5, VOCAB, b)
        row = [2, *first, 3, *second, 3] if b else [2, *first, 3]
        n = len(row)
        out["ids"][r, :n] = row
        out["docs"][r, :n] = 1
        out["types"][r, a + 2 : n] = 1
        out["word_starts"][r, :n] = draw.random(n) < 0.5
        out["word_starts"][r, [0, 1, a + 1, n - 1]] = 1
        if b:
            out["word_starts"][r, a + 2] = 1
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    return out | {"positions": positions, "rows": np.arange(ROWS)}


def halves(batch: dict[str, np.ndarray], r: int) -> tuple[list, list]:
    """Segments A and B of a row, each a list of (id, begins a word)."""
    n = int(batch["docs"][r].sum())
    second = int(batch["types"][r].sum())
    both = list(zip(batch["ids"][r].tolist(), batch["word_starts"][r].tolist(), strict=True))
    return both[1 : n - second - 1], both[n - second : n - 1] if second else []


def written(first: list, second: list) -> dict[str, list[int]]:
    """[CLS] A [SEP] B [SEP] as lists of numbers."""
    row = [(2, 1), *first, (3, 1), *second, (3, 1)]
    pad = [0] * (LENGTH - len(row))
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    return {
        "ids": [x for x, _ in row] + pad,
        "word_starts": [x for _, x in row] + pad,
        "types": types + pad,
        "docs": [1] * len(row) + pad,
    }


def plainly(kind: str, batch: dict[str, np.ndarray], coins: np.ndarray) -> dict[str, np.ndarray]:
    """The rows, changed by lists."""
    out = {name: batch[name].copy() for name in CHANGED}
    out |= {"apart": np.zeros(ROWS, np.float32), "asked": np.zeros(ROWS, np.float32)}
    for r in range(ROWS):
        first, second = halves(batch, r)
        if kind == "order":
            changed = (second, first)
        else:
            other = halves(batch, r - 1)[1] if r else []
            changed = (first, other[: LENGTH - 3 - len(first)])
        if not second or not all(changed):
            continue
        out["asked"][r], out["apart"][r] = 1, coins[r]
        if coins[r]:
            for name, x in written(*changed).items():
                out[name][r] = x
    return out


@pytest.mark.parametrize("kind", ["order", "next"])
def test_the_rows_are_those_of_lists(make_objective, batch, kind: str):
    """Catches segments of the wrong lengths, words cut, types that stay with their place, padding that is read, rows of
    one segment that are asked about, and a row that does not fit."""
    objective = make_objective("mlm", sentence=kind)
    keys = step_keys(1, jnp.zeros((), jnp.int32))
    found = jax.jit(objective.prepare)(batch, keys)
    noise = noise_ops.for_rows(keys["mask"], jnp.asarray(batch["rows"])).at(64)
    coins = np.asarray(noise_ops.uniform(noise, noise_ops.count(1))[:, 0] < 0.5)
    expected = plainly(kind, batch, coins)
    assert 4 < expected["apart"].sum() < expected["asked"].sum() - 4
    for name, x in expected.items():
        assert np.array_equal(found[name], x), name
    # What is masked is the changed text.
    masked = np.asarray(found["masked"])
    assert np.array_equal(masked[masked != 4], expected["ids"][masked != 4])
    # The same rows, whatever else is in the batch.
    if kind == "order":
        order = np.array([5, 0, 7, 2])
        part = jax.jit(objective.prepare)({name: x[order] for name, x in batch.items()}, keys)
        assert np.array_equal(part["masked"], np.asarray(found["masked"])[order])


def context_of(objective: Any, batch: dict[str, Any], key: int = 0) -> Context:
    keys = step_keys(2, jnp.zeros((), jnp.int32))
    params = objective.init(jax.random.key(key))
    # The head's first weights are too small to tell one encoder from another.
    params[sentence.HEAD] = jax.tree.map(lambda x: 40 * x + 0.1, params[sentence.HEAD])
    prepared = objective.prepare(batch, keys)
    totals = objective.totals(prepared)
    return Context(params, prepared, totals, keys, jnp.zeros((), jnp.int32), {})


@pytest.mark.parametrize(
    ("name", "tying"), [("mlm", "embeddings"), ("electra", "embeddings"), ("electra", "all")]
)
def test_the_loss_is_the_sum(make_objective, batch, name: str, tying: str):
    """Catches a head on the generator, on another token than [CLS] or on the unchanged text; a mean over rows that were
    not asked; and a weight that is left out."""
    objective = make_objective(name, {"tying": tying}, sentence="order", sentence_weight=3.0)
    alone = make_objective(name, {"tying": tying})
    context = context_of(objective, batch)
    value, sums = jax.jit(objective.loss)(context)
    plain = {k: x for k, x in context.params.items() if k != sentence.HEAD}
    value_alone, sums_alone = jax.jit(alone.loss)(context._replace(params=plain))
    assert set(sums) == {*sums_alone, "sentence_loss", "sentence_correct", "sentence_count"}

    # The encoder by itself, on the text that it is shown.
    tokens = Tokens.of(context.batch)
    if name == "electra":
        shown = jax.jit(alone.evaluate)(context._replace(params=plain))[1]["ids"]
        tokens = tokens._replace(ids=shown)
    else:
        tokens = tokens._replace(ids=context.batch["masked"])
    dims = alone.dims
    embeddings = dims.family.embeddings(dims.embeddings(dims.spec.embedding))
    embedded = embeddings.apply({"params": plain["embeddings"]}, tokens, None)
    encoder = "discriminator" if name == "electra" else "encoder"
    hidden = Encoder(dims.discriminator).apply({"params": plain[encoder]}, embedded, tokens, None)
    head = jax.tree.map(np.asarray, context.params[sentence.HEAD])
    pooled = np.tanh(np.asarray(hidden)[:, 0] @ head["dense"]["kernel"] + head["dense"]["bias"])
    logit = (pooled @ head["out"]["kernel"] + head["out"]["bias"])[:, 0]
    apart, asked = np.asarray(context.batch["apart"]), np.asarray(context.batch["asked"])
    probability = 1 / (1 + np.exp(-logit))
    nll = -np.log(np.where(apart > 0, probability, 1 - probability))
    assert np.std(logit) > 1e-3
    assert float(sums["sentence_loss"]) == pytest.approx((nll * asked).sum(), rel=1e-4)
    assert float(sums["sentence_count"]) == asked.sum() < ROWS
    mean = (nll * asked).sum() / asked.sum()
    assert float(value) == pytest.approx(float(value_alone) + 3 * mean, rel=1e-5)
    values = objective.metrics(jax.tree.map(np.asarray, sums))
    assert values["sentence_loss"] == pytest.approx(mean, rel=1e-4)
    right = ((logit > 0) == (apart > 0))[asked > 0].mean()
    assert values["sentence_accuracy"] == pytest.approx(right)
    inner = alone.metrics(jax.tree.map(np.asarray, sums_alone))
    assert values["loss"] == pytest.approx(inner["loss"] + 3 * mean, rel=1e-5)


def test_the_parameters_of_the_objective_stay(make_objective):
    """Catches a sentence objective that changes what the other begins with."""
    with_head = make_objective(sentence="next").init(jax.random.key(0))
    alone = make_objective().init(jax.random.key(0))
    assert sorted(with_head.pop(sentence.HEAD)) == ["dense", "out"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), with_head, alone))


def test_micro_batches_add_up(make_objective, batch):
    """Catches a mean over the rows of a part."""
    objective = make_objective("mlm", sentence="order")
    context = context_of(objective, batch)
    loss = jax.jit(lambda batch: objective.loss(context._replace(batch=batch))[0])
    parts = [{k: x[i::2] for k, x in context.batch.items()} for i in (0, 1)]
    whole = float(jax.jit(objective.loss)(context)[0])
    assert sum(float(loss(part)) for part in parts) == pytest.approx(whole, rel=1e-5)


def test_an_objective_without_its_encoder(make_objective, batch):
    """Catches a head that silently learns from nothing."""

    @dataclasses.dataclass(frozen=True)
    class Idle:
        inner: Any

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def loss(self, context: Context) -> tuple:
            return jnp.zeros(()), {}

    objective = make_objective("mlm", sentence="order")
    idle = dataclasses.replace(objective, objective=Idle(objective.objective))
    with pytest.raises(UserError, match="does not run the encoder"):
        idle.loss(context_of(objective, batch))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentence": "ordre"}, "Did you mean 'order'"),
        ({"sentence": "order", "sentence_weight": 0.0}, "sentence_weight=0.0 must be above 0"),
    ],
)
def test_impossible_options_are_refused(make_objective, changes: dict, message: str):
    """Catches a name or a weight that silently means nothing."""
    with pytest.raises(UserError, match=message):
        make_objective(**changes)


@pytest.mark.parametrize("name", sorted(registry.KNOWN))
def test_it_goes_beside_every_objective(make_objective, batch, name: str):
    """Catches an objective whose encoder the head does not find, or whose sums or state it loses; on shapes alone."""
    own: dict[str, Any] = {}
    if hasattr(registry.options_of(name), "generator_run"):
        same = {"tying": "none", "generator_size": 1.0, "embedding": 16, "heads": 1, "ffn": 64}
        own = {"generator_run": "mlm-run", "model": same}
        own |= {"temperature_first": 2.0, "temperature_steps": 4}
    objective = make_objective(name, sentence="next", **own)
    key = jax.random.key(0)

    def run() -> Any:
        params = objective.init(key)
        step = jnp.zeros((), jnp.int32)
        keys, carried = step_keys(0, step), objective.carried(params)
        prepared = objective.prepare(batch | {"step": jnp.zeros(ROWS, jnp.int32)}, keys)
        context = Context(params, prepared, objective.totals(prepared), keys, step, carried)
        value, sums = objective.loss(context)
        return value, sums, objective.evaluate(context), objective.carry(context, params, sums)

    value, sums, evaluated, carried = jax.eval_shape(run)
    assert (
        value.shape == ()
        and {"sentence_loss", "sentence_count"} <= sums.keys() & evaluated[0].keys()
    )
    assert carried == jax.eval_shape(lambda: objective.carried(objective.init(key)))


def test_what_it_says_of_itself(make_objective):
    """Catches an accuracy that the progress line leaves out, and a head that an export cannot place."""
    objective = make_objective(sentence="order")
    assert [metric.name for metric in objective.shown][-1] == "sentence_accuracy"
    assert objective.flops(LENGTH) > make_objective().flops(LENGTH)
    assert objective.exports()[0].beside == (sentence.HEAD,)
