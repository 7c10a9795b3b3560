"""The optimizer against numbers worked out by hand and in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.learn import optim
from electra_jax.learn.arrays import flatten
from electra_jax.learn.optim import OptimSpec
from electra_jax.model.electra import Dimensions, Electra, MaskedLM, ModelSpec
from electra_jax.spec import UserError, from_config, load_config

SPEC = OptimSpec(
    name="adam",
    peak_lr=2e-4,
    warmup=10,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
)


def rates(spec: OptimSpec, total: int, steps: list[int]) -> list[float]:
    one = jax.jit(lambda step: optim.learning_rate(spec, step, total))
    return [float(one(jnp.int32(step))) for step in steps]


def test_schedule_multiplies_warmup_and_decay():
    """Catches warmup followed by decay: the peak is peak_lr x (1 - warmup / total), not peak_lr,
    and step 0 has rate 0."""
    found = rates(SPEC, 100, [0, 1, 5, 10, 50, 99, 100, 150])
    parts = [0, 0.1 * 0.99, 0.5 * 0.95, 0.9, 0.5, 0.01, 0, 0]
    assert found == pytest.approx([2e-4 * part for part in parts], rel=1e-5, abs=1e-12)


def test_schedule_without_warmup_and_with_a_power():
    """Catches 0 / 0 at warmup 0, and a power applied to the warmup too."""
    plain = dataclasses.replace(SPEC, warmup=0)
    assert rates(plain, 100, [0, 50]) == pytest.approx([2e-4, 1e-4])
    squared = dataclasses.replace(SPEC, lr_power=2.0)
    assert rates(squared, 100, [5, 50]) == pytest.approx([2e-4 * 0.5 * 0.9025, 5e-5])


def test_schedule_late_in_a_long_run():
    """Catches step numbers rounded: at step 999,999 of a million the rate is a millionth of the
    peak, and still counts down."""
    found = rates(SPEC, 1_000_000, [999_998, 999_999])
    assert found == pytest.approx([4e-10, 2e-10], rel=0.05)


def test_adam_by_hand():
    """Catches bias correction, epsilon inside the root, and betas exchanged: for gradients 2 and
    then -1 of one weight, worked out by hand.

    m: 0.2, then 0.18 - 0.1 = 0.08. v: 0.004, then 0.003996 + 0.001 = 0.004996.
    """
    adam = optim.scale_by_adam(0.9, 0.999, 1e-6, unbiased=False)
    state = adam.init({"w": jnp.zeros(1)})
    first, state = adam.update({"w": jnp.array([2.0])}, state)
    assert float(first["w"][0]) == pytest.approx(0.2 / (0.004**0.5 + 1e-6), rel=1e-5)
    second, state = adam.update({"w": jnp.array([-1.0])}, state)
    assert float(second["w"][0]) == pytest.approx(0.08 / (0.004996**0.5 + 1e-6), rel=1e-5)


def test_epsilon_is_outside_the_root():
    """Catches sqrt(v + eps): with a gradient of 1e-5 the two differ thirtyfold."""
    adam = optim.scale_by_adam(0.9, 0.999, 1e-6, unbiased=False)
    step, _ = adam.update({"w": jnp.array([1e-5])}, adam.init({"w": jnp.zeros(1)}))
    assert float(step["w"][0]) == pytest.approx(1e-6 / (1e-13**0.5 + 1e-6), rel=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_ten_steps_in_numpy(name: str):
    """Catches decay added to the gradient instead of the step, decay of a bias, moments that are not
    carried over, a trust ratio before decay, turned round, or of a bias."""
    draw = np.random.default_rng(0)
    params = {"a": {"kernel": draw.normal(size=(3, 4)), "bias": draw.normal(size=4)}}
    spec = dataclasses.replace(SPEC, name=name, weight_decay=0.1)
    transform = optim.direction(spec)
    ours = jax.tree.map(jnp.float32, params)
    state = transform.init(ours)
    m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    update = jax.jit(transform.update)
    for t in range(1, 11):
        grads = jax.tree.map(lambda x: draw.normal(size=x.shape), params)
        step, state = update(jax.tree.map(jnp.float32, grads), state, ours)
        ours = jax.tree.map(lambda p, s: p - 0.01 * s, ours, step)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, grads)
        c1, c2 = (1 - 0.9**t, 1 - 0.999**t) if name != "adam" else (1, 1)
        for leaf, decay in (("kernel", 0.1), ("bias", 0.0)):
            p = params["a"][leaf]
            adam = (m["a"][leaf] / c1) / (np.sqrt(v["a"][leaf] / c2) + 1e-6)
            whole = adam + decay * p
            if name == "lamb" and leaf == "kernel":
                whole *= np.linalg.norm(p) / np.linalg.norm(whole)
            params["a"][leaf] = p - 0.01 * whole
    for leaf in ("kernel", "bias"):
        assert np.abs(ours["a"][leaf] - params["a"][leaf]).max() < 1e-5


def test_adamw_is_optaxs():
    """Catches a hand-made AdamW that drifts from the library's."""
    params = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}}
    grads = jax.tree.map(lambda x: jnp.sin(x) + 0.1, params)
    ours = optim.direction(dataclasses.replace(SPEC, name="adamw"))
    theirs = optax.adamw(1.0, 0.9, 0.999, 1e-6, weight_decay=0.01, mask=optim.decay_mask)
    mine, other = ours.init(params), theirs.init(params)
    for _ in range(3):
        step, mine = ours.update(grads, mine, params)
        expected, other = theirs.update(grads, other, params)
        for x, y in zip(jax.tree.leaves(step), jax.tree.leaves(expected), strict=True):
            assert np.allclose(x, -y, rtol=1e-6)


@pytest.mark.parametrize("module", [Electra, MaskedLM])
@pytest.mark.parametrize("tying", ["embeddings", "none"])
def test_what_is_decayed(module: type, tying: str):
    """Catches decay of a bias, of a LayerNorm, or of the vocabulary's bias, and an embedding table
    left out, over the real trees."""
    section = load_config("tiny").model.to_dict() | {"tying": tying, "layers": 1}
    dims = Dimensions(from_config(ModelSpec, section, "model"), 100)
    shapes = jax.eval_shape(lambda: module(dims).init(jax.random.key(0)))["params"]
    mask = flatten(optim.decay_mask(shapes))
    matrices = {name for name, s in flatten(shapes).items() if len(s.shape) == 2}
    assert {name for name, decayed in mask.items() if decayed} == matrices
    assert {"embeddings/word", "embeddings/position", "embeddings/type"} <= matrices
    for name in set(mask) - matrices:
        assert name.rpartition("/")[2] in ("bias", "scale")


def test_clipping():
    """Catches clipping per tensor, small gradients scaled up, and a scale other than limit / norm."""
    grads = {"a": jnp.array([3.0]), "b": {"c": jnp.array([4.0, 0.0])}}
    clipped = optim.clip(grads, jnp.float32(5.0), 1.0)
    assert float(clipped["a"][0]) == pytest.approx(0.6)
    assert clipped["b"]["c"].tolist() == pytest.approx([0.8, 0.0])
    small = jax.tree.map(lambda g: g / 10, grads)
    same = optim.clip(small, jnp.float32(0.5), 1.0)
    assert float(same["a"][0]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adma"}, "Did you mean 'adam'"),
        ({"peak_lr": -1.0}, "^optim.peak_lr=-1.0 must not be negative"),
        ({"weight_decay": -1.0}, "^optim.weight_decay=-1.0 must not be negative"),
        ({"clip_norm": 0.0}, "optim.clip_norm=0.0 must be above 0"),
    ],
)
def test_impossible_options_are_refused(changes: dict, message: str):
    """Catches a run that climbs, or stands still, for a typing mistake."""
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SPEC, **changes)
