"""Muon and StableAdamW against optax, against numbers in numpy, and on meshes."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from electra_jax.data.source import Prepared
from electra_jax.learn import mesh as meshes
from electra_jax.learn import muon, optim, parts
from electra_jax.learn.arrays import flatten, nest
from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part
from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.pretrain.program import Program
from electra_jax.spec import UserError, from_config, load_config
from electra_jax.text.tokenizer import SpecialIds

SPEC = OptimSpec(
    name="muon",
    peak_lr=1e-2,
    warmup=0,
    lr_power=0.0,
    beta1=0.9,
    beta2=0.98,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
)
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
BATCH, LENGTH, VOCAB = 8, 16, 100
DATA = Prepared(Path("rows"), LENGTH, {"train": 99, "valid": 9}, VOCAB, SPECIAL, "", "", {})
SMALL = (
    *("model.layers=1", "model.width=16", "model.ffn=32", "model.embedding=8", "model.heads=1"),
    *("model.positions=16", f"train.batch={BATCH}", "objective.name=mlm"),
    *("optim.name=muon", "optim.peak_lr=0.02"),
)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """A tree with one array of every sort, as ELECTRA has them: tables, wide and tall matrices, a head, bias, norm."""
    shapes = {
        "embeddings/word": (128, 16),
        "embeddings/position": (8, 16),
        "discriminator/layer_0/up/kernel": (16, 48),
        "discriminator/layer_0/up/bias": (48,),
        "discriminator/layer_0/out/kernel": (16, 16),
        "discriminator/layer_0/down/kernel": (48, 16),
        "discriminator/layer_0/output_norm/scale": (16,),
        "discriminator_head/out/kernel": (16, 1),
    }
    draw = np.random.default_rng(9)
    return nest({n: jnp.asarray(draw.normal(size=s), jnp.float32) for n, s in shapes.items()})


def gradients(params: Any, seed: int) -> Any:
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(draw.normal(size=p.shape), jnp.float32), params)


def optaxs(spec: OptimSpec, params: Any) -> optax.GradientTransformation:
    """The library's Muon with the same settings; which parameters are its is written out."""
    last = "discriminator_head/out/kernel"
    numbers = {
        path: optax.contrib.MuonDimensionNumbers()
        if x.ndim == 2 and (spec.matrices == "all" or (path.endswith("kernel") and path != last))
        else None
        for path, x in flatten(params).items()
    }
    return optax.contrib.muon(
        spec.peak_lr,
        beta=spec.momentum,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        weight_decay_mask=optim.decay_mask,
        adam_b1=spec.beta1,
        adam_b2=spec.beta2,
        adam_weight_decay=0.0,
        adam_learning_rate=spec.adam_ratio * spec.peak_lr,
        muon_weight_dimension_numbers=nest(numbers),
        consistent_rms=spec.consistent_rms or None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"matrices": "all"},
        {"adam_ratio": 0.1, "consistent_rms": 0.2, "momentum": 0.9},
        {"matrices": "all", "weight_decay": 0.1},
    ],
    ids=["hidden", "sketch", "scaled", "decayed"],
)
def test_muon_is_optaxs(params: Any, changes: dict[str, Any]):
    """Catches momentum without Nesterov or correction, Adam without Nesterov, in and out exchanged in the scale, a
    matrix that is Adam's or a table that is not, and a ratio or decay that reaches the wrong parameters."""
    spec = dataclasses.replace(SPEC, **changes)
    ours, theirs = optim.direction(spec), optaxs(spec, params)
    mine, other = ours.init(params), theirs.init(params)
    step, expect = jax.jit(ours.update), jax.jit(theirs.update)
    for seed in range(3):
        grads = gradients(params, seed)
        updates, mine = step(grads, mine, params)
        expected, other = expect(grads, other, params)
        for (path, x), y in zip(flatten(updates).items(), jax.tree.leaves(expected), strict=True):
            assert np.allclose(-spec.peak_lr * x, y, rtol=2e-4, atol=2e-6), path


def test_the_default_settings_are_optaxs(params: Any):
    """Catches defaults that drift from those of the library, of which the sketch of this recipe was made."""
    grads = gradients(params, 0)
    ours = optim.direction(dataclasses.replace(SPEC, matrices="all"))
    theirs = optax.contrib.muon(1e-2, adam_b2=0.98)
    updates, _ = jax.jit(ours.update)(grads, ours.init(params), params)
    expected, _ = jax.jit(theirs.update)(grads, theirs.init(params), params)
    for x, y in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        assert np.allclose(-1e-2 * x, y, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]):
    """Catches a wrong coefficient, and rows taken for columns."""
    x = jax.random.normal(jax.random.key(0), shape)
    values = np.linalg.svd(np.asarray(muon.orthogonal(x, 1e-8)), compute_uv=False)
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = np.linalg.svd(np.asarray(x), full_matrices=False)
    assert np.sum((u @ v) * np.asarray(muon.orthogonal(x, 1e-8))) > 0.8 * min(shape)


def test_what_muon_has():
    """Catches a table, a bias, a norm or the last layer of a head among Muon's, and a second moment for a matrix."""
    section = load_config("tiny").model.to_dict() | {"layers": 1}
    dims = Dimensions(from_config(ModelSpec, section, "model"), 100)
    params = jax.eval_shape(lambda: Electra(dims).init(jax.random.key(0)))["params"]
    state = flatten(jax.eval_shape(optim.direction(SPEC).init, params))
    momentum = {name for name in state if "/momentum/" in name}
    second = {name for name in state if "/nu/" in name}
    assert len(momentum) + len(second) == len(flatten(params))
    assert any(name.endswith("layer_0/out/kernel") for name in momentum)
    assert any(name.endswith("discriminator/project/kernel") for name in momentum)
    assert any(name.endswith("discriminator_head/dense/kernel") for name in momentum)
    assert any(name.endswith("discriminator_head/out/kernel") for name in second)
    assert not any(
        name.endswith(("word", "position", "type", "bias", "scale")) for name in momentum
    )


@pytest.mark.parametrize("name", ["muon", "stable_adamw"])
def test_a_step_that_is_not_finite_leaves_the_state(params: Any, name: str):
    """Catches momentum that takes up a NaN, after which no step is finite any more."""
    part = Part(optim=dataclasses.replace(SPEC, name=name), steps=9)
    state = parts.init([part], params)
    grads = jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(jnp.nan), gradients(params, 0))
    moved, after = parts.descend(
        [part],
        params={"all": params},
        grads={"all": grads},
        opt_state=state,
        norms={"all": optim.global_norm(grads)},
        rates={"all": jnp.float32(0.1)},
        finite=jnp.bool_(False),
    )
    for x, y in zip(
        jax.tree.leaves((params, state)), jax.tree.leaves((moved["all"], after)), strict=True
    ):
        assert np.array_equal(x, y)


def test_rates_by_layer_reach_matrices_too(params: Any):
    """Catches layer-wise decay that Muon's own scale undoes: the step is orthogonal whatever the gradient's size."""
    grads = gradients(params, 0)

    def moved(factor: Callable[[str], float] | None) -> Any:
        part = Part(optim=SPEC, steps=9, factor=factor)
        after, _ = parts.descend(
            [part],
            params={"all": params},
            grads={"all": grads},
            opt_state=parts.init([part], params),
            norms={"all": optim.global_norm(grads)},
            rates={"all": jnp.float32(0.1)},
            finite=jnp.bool_(True),
        )
        return flatten(after["all"])["discriminator/layer_0/up/kernel"]

    before = params["discriminator"]["layer_0"]["up"]["kernel"]
    whole, half = moved(None), moved(lambda path: 0.5 if "layer_0" in path else 1.0)
    assert np.allclose(half - before, 0.5 * (whole - before), atol=1e-6)


def mesh(data: int, fsdp: int) -> Mesh:
    return Mesh(np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp), ("data", "fsdp"))


@functools.cache
def built(data: int, fsdp: int, *overrides: str) -> Program:
    run = run_spec(load_config("tiny", [*SMALL, *overrides]).to_dict())
    return program.build(run, run.phases(DATA)[0], mesh(data, fsdp))


def batches(compiled: Program) -> Any:
    draw = np.random.default_rng(0)
    shape = (BATCH, LENGTH)
    rows = {
        "ids": draw.integers(5, VOCAB, shape),
        "types": np.zeros(shape),
        "docs": np.ones(shape),
        "word_starts": np.ones(shape),
        "positions": np.broadcast_to(np.arange(LENGTH), shape),
    }
    return {n: jax.device_put(x.astype(np.int32), compiled.batch_sharding) for n, x in rows.items()}


@functools.cache
def trained(data: int, fsdp: int, *overrides: str) -> dict[str, np.ndarray]:
    """The state after three steps, by path."""
    compiled = built(data, fsdp, *overrides)
    state, batch = compiled.init(), batches(compiled)
    for _ in range(3):
        state, _ = compiled.train_step(state, batch)
    return flatten(jax.device_get(state))


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2)])
def test_eight_devices_learn_what_one_does(data: int, fsdp: int):
    """Catches a norm, a product or a mean of a part of a matrix in place of the whole."""
    one, eight = trained(1, 1), trained(data, fsdp)
    for name, x in one.items():
        assert np.allclose(x, eight[name], rtol=1e-3, atol=3e-5), name


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2)])
def test_updates_on_eight_devices_are_optaxs(params: Any, data: int, fsdp: int):
    """Catches the library's update met on one device alone: gradients and moments lie in parts here."""
    on, theirs = mesh(data, fsdp), optaxs(SPEC, params)
    expect = jax.jit(theirs.update)
    update = jax.jit(meshes.on_mesh(optim.direction(SPEC).update, on))
    state, other = optim.direction(SPEC).init(params), theirs.init(params)
    placed = lambda tree: jax.device_put(tree, meshes.place({"params": tree}, on)["params"])  # noqa: E731
    for seed in range(2):
        grads = gradients(params, seed)
        updates, state = update(placed(grads), state, placed(params))
        expected, other = expect(grads, other, params)
        for (path, x), y in zip(flatten(updates).items(), jax.tree.leaves(expected), strict=True):
            assert np.allclose(-SPEC.peak_lr * x, y, rtol=2e-4, atol=2e-6), path


def test_momentum_lies_where_its_matrix_does():
    """Catches momentum copied to every device, half of the memory that fsdp is for."""
    state = flatten(built(4, 2).abstract_state)
    momentum = {name: x for name, x in state.items() if "/momentum/" in name}
    assert len(momentum) == 8
    assert all(x.sharding.spec[0] == "fsdp" for x in momentum.values())


def test_micro_batches_make_one_step():
    """Catches a step for every micro-batch: orthogonal steps do not add up to the batch's."""
    whole, parted = trained(1, 1), trained(1, 1, "train.accumulation=4")
    for name, x in whole.items():
        assert np.allclose(x, parted[name], rtol=1e-3, atol=3e-5), name


def test_a_run_goes_on_bit_for_bit(tmp_path: Path):
    """Catches a state of Muon's that a checkpoint drops, reorders or rounds."""
    compiled = built(4, 2)
    state, batch = compiled.init(), batches(compiled)
    state, _ = compiled.train_step(state, batch)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    restored = Checkpoints(tmp_path).restore(compiled.abstract_state)
    assert restored is not None
    found: Any = restored[1]
    for _ in range(2):
        found, _ = compiled.train_step(found, batch)
    for name, x in trained(4, 2).items():
        assert np.array_equal(x, flatten(jax.device_get(found))[name]), name


def test_adams_moments_are_no_momentum(params: Any):
    """Catches an import of the original's run that goes on under Muon with moments of nothing."""
    state = optim.direction(SPEC).init(params)
    with pytest.raises(UserError, match="moments of Adam, which optim.name=muon cannot go on with"):
        optim.with_moments(state, mu=params, nu=params, count=jnp.int32(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adam", "momentum": 0.9}, "optim.momentum=0.9 is an option of muon, but"),
        ({"name": "lamb", "adam_ratio": 0.1}, "leave it at 1.0 or set --config.optim.name=muon"),
        ({"matrices": "al"}, "optim.matrices.*Did you mean 'all'"),
        ({"momentum": 1.0}, "optim.momentum=1.0"),
        ({"adam_ratio": -1.0}, "optim.adam_ratio=-1.0"),
        ({"consistent_rms": -1.0}, "optim.consistent_rms=-1.0"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], message: str):
    """Catches an option that does nothing under the optimizer that was chosen."""
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SPEC, **changes)


def test_stable_adamw_in_numpy():
    """Catches clipping by the norm, of all tensors together, before the second moment took up the gradient, or of the
    step without its decay: a tensor whose gradient grows hundredfold takes a shorter step, another does not."""
    spec = dataclasses.replace(SPEC, name="stable_adamw", weight_decay=0.1, eps=1e-6)
    draw = np.random.default_rng(0)
    params = {"a": {"kernel": draw.normal(size=(3, 4))}, "b": {"kernel": draw.normal(size=(4, 2))}}
    ours, transform = jax.tree.map(jnp.float32, params), optim.direction(spec)
    state, update = transform.init(ours), jax.jit(transform.update)
    m, v, shortened = {"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}, []
    for t in range(1, 7):
        grads = jax.tree.map(lambda x: draw.normal(size=x.shape), params)
        grads["a"]["kernel"] *= 100 if t == 5 else 1
        step, state = update(jax.tree.map(jnp.float32, grads), state, ours)
        for name in params:
            p, g = params[name]["kernel"], grads[name]["kernel"]
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.98 * v[name] + 0.02 * g**2
            mean, square = m[name] / (1 - 0.9**t), v[name] / (1 - 0.98**t)
            rms = np.sqrt(np.mean(g**2 / np.maximum(square, 1e-12)))
            shortened += [(t, name)] if rms > 2 else []
            expected = (mean / (np.sqrt(square) + 1e-6) + 0.1 * p) / max(1, rms)
            assert np.allclose(step[name]["kernel"], expected, rtol=1e-4, atol=1e-6)
            params[name]["kernel"] = p - 0.1 * expected
        ours = jax.tree.map(lambda p, s: p - 0.1 * s, ours, step)
    assert shortened == [(5, "a")]
