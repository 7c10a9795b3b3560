"""Gradient-disentangled embedding sharing: what each loss reaches, on the program of a run, and where it is refused."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from electra_jax.learn import mesh as meshes
from electra_jax.learn.arrays import flatten
from electra_jax.learn.parts import Part
from electra_jax.model import sharing
from electra_jax.objective import registry
from electra_jax.pretrain import program
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import RunSpec, complete, run_spec
from electra_jax.pretrain.program import Program
from electra_jax.spec import UserError, overridden

GDES = ("model.tying=gdes", "model.generator_size=1.0", "model.dropout=0.0")


MODERN_MODEL = (
    "model.family=modern",
    "model.types=1",
    "model.embedding=16",
    "model.attention_dropout=0.0",
    "model.layers=2",
    "model.generator_layers=0.5",
)


@pytest.fixture(scope="module")
def run(config) -> Callable[..., RunSpec]:
    """The options of a tiny run with overrides."""

    def make(*overrides: str) -> RunSpec:
        whole = overridden(complete(config().to_dict()), [*GDES, "optim.warmup=0", *overrides])
        return run_spec(whole.to_dict())

    return make


@pytest.fixture(scope="module")
def built(run, prepared) -> Callable[..., Program]:
    """The program of such a run."""

    def make(*overrides: str, data: int = 1, fsdp: int = 1) -> Program:
        spec = run(*overrides)
        grid = meshes.build(meshes.MeshSpec(data, fsdp), jax.devices()[: data * fsdp])
        return program.build(spec, spec.phases(prepared)[0], grid)

    return make


def batch(built: Program, prepared: Any, step: int = 0) -> dict[str, jax.Array]:
    rows = prepared.source("train").rows(np.arange(8) + 8 * step)
    return {name: jax.device_put(x, built.batch_sharding) for name, x in rows.items()}


def moved(built: Program, prepared: Any, steps: int = 1) -> tuple[dict, dict, dict]:
    """(parameters before, parameters after, sums of the last step), by path."""
    state = built.init()
    before = flatten(jax.device_get(state["params"]))
    for step in range(steps):
        state, sums = built.train_step(state, batch(built, prepared, step))
    return before, flatten(jax.device_get(state["params"])), jax.device_get(sums)


def test_it_begins_with_the_generators_tables(built):
    """Catches deltas that are drawn: the networks would begin with different words."""
    params = jax.device_get(built().init()["params"])
    used = sharing.summed(params)
    for name in ("word", "position", "type"):
        assert not params["embeddings"][name].any()
        assert params["generator_embeddings"][name].any()
        assert np.array_equal(used["embeddings"][name], params["generator_embeddings"][name])
    assert used["embeddings"]["norm"] is params["embeddings"]["norm"]


@pytest.mark.parametrize(
    ("silent", "still"),
    [("generator_weight=0.0", "generator"), ("discriminator_weight=0.0", "discriminator")],
)
@pytest.mark.parametrize(
    "more", [(), (*MODERN_MODEL, "optim.name=muon")], ids=["electra", "modern"]
)
def test_no_loss_reaches_the_others_part(
    built, prepared, silent: str, still: str, more: tuple[str, ...]
):
    """Catches a table without stop_gradient, a delta in the generator's part, and a norm of both parts together.

    Of either family, by Adam and by Muon, whose split of the matrices is within each part.
    """
    compiled = built(f"objective.{silent}", "optim.weight_decay=0.0", *more)
    before, after, sums = moved(compiled, prepared)
    parts = {n: "generator" if n.startswith("generator") else "discriminator" for n in before}
    changed = {n: not np.array_equal(before[n], after[n]) for n in before}
    assert not any(changed[n] for n in before if parts[n] == still)
    # Adding a constant to all keys changes no softmax: their bias has rounding for a gradient, or none.
    assert all(changed[n] for n in before if parts[n] != still and not n.endswith("key/bias"))
    assert sums[f"step/grad_norm_{still}"] == 0
    other = {"generator": "discriminator", "discriminator": "generator"}[still]
    assert sums[f"step/grad_norm_{other}"] == sums["step/grad_norm"] > 0


def test_each_part_has_its_own_rate(built, prepared):
    """Catches options that are read and not passed on, and a factor that reaches the generator's part too."""
    plain = moved(built("optim.weight_decay=0.0"), prepared)
    slow = built("optim.weight_decay=0.0", "objective.discriminator_rate=0.25")
    before, after, _ = moved(slow, prepared)
    for name, value in before.items():
        factor = 1.0 if name.startswith("generator") else 0.25
        expected = factor * (plain[1][name] - value)
        np.testing.assert_allclose(after[name] - value, expected, rtol=1e-3, atol=1e-8)


def test_each_part_has_its_own_clip_norm(run, prepared):
    """Catches a clip norm that reaches both parts, or none."""
    spec = run("objective.discriminator_clip=1e-3")
    parts = spec.make_objective(prepared).parts(Part(optim=spec.optim, steps=4))
    assert [(part.name, part.optim.clip_norm) for part in parts] == [
        ("generator", 1.0),
        ("discriminator", 1e-3),
    ]


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (2, 4)])
def test_eight_devices_learn_what_one_does(built, prepared, data: int, fsdp: int):
    """Catches tables or deltas that are split and not gathered, and norms of a part that are one device's."""
    one, many = (moved(built(data=d, fsdp=f), prepared, steps=2) for d, f in ((1, 1), (data, fsdp)))
    for name, value in one[1].items():
        np.testing.assert_allclose(many[1][name], value, atol=2e-5, err_msg=name)
    for name in ("grad_norm_generator", "grad_norm_discriminator", "total_loss"):
        np.testing.assert_allclose(many[2][f"step/{name}"], one[2][f"step/{name}"], rtol=1e-4)


def test_an_option_of_the_discriminators_part_needs_one(run, prepared):
    """Catches a rate that is asked for and has no effect."""
    for option in ("discriminator_rate=0.5", "discriminator_clip=2.0"):
        wrong = run("model.tying=embeddings", f"objective.{option}")
        with pytest.raises(
            UserError, match=r"objective.discriminator_\w+=.* set --config.model.tying=gdes"
        ):
            wrong.make_objective(prepared)


def test_a_run_keeps_its_tying(config, tmp_path):
    """Catches a run that was begun without deltas and goes on with them, or the other way round."""
    folder = tmp_path / "run"
    starts.begin(starts.open_run(config(), folder))
    with pytest.raises(UserError, match="model.tying: was 'embeddings', now 'gdes'"):
        starts.open_run(None, folder, ["model.tying=gdes"])


def test_flops_count_a_generator_on_embeddings_of_the_full_width(run, prepared):
    """Catches a generator counted at the width of its own embeddings; the addition of the delta is no product."""
    shared, disentangled = (
        run(f"model.tying={tying}").make_objective(prepared).flops(32)
        for tying in ("embeddings", "gdes")
    )
    assert shared == disentangled > 0


def test_a_sum_gives_its_delta_back():
    """Catches a delta that is rounded to another sum: an export after an import would differ in its last bits."""
    draw = np.random.default_rng(0)
    table, delta = (draw.normal(size=200_000).astype(np.float32) for _ in range(2))
    delta *= np.float32(10) ** draw.integers(-6, 2, delta.shape).astype(np.float32)
    whole = table + delta
    assert np.array_equal(table + sharing.difference(whole, table), whole)


def test_its_name_is_known_to_the_registry(run, prepared):
    """Catches exports of the deltas in the sums' place."""
    exports = run().make_objective(prepared).exports()
    assert exports == registry.exports("electra", run().dimensions(prepared.vocab_size))
    assert [(e.embeddings, e.added, e.tying) for e in exports] == [
        ("embeddings", "generator_embeddings", ""),
        ("generator_embeddings", "", "gdes"),
    ]
