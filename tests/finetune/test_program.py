"""The step: several runs in one program are the runs one after another, and what a step may not change."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from electra_jax.finetune import order, rows
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import ModelOptions, OptimOptions
from electra_jax.finetune.program import Program, StepSpec, micro_batches
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.model.electra import Dimensions

STEPS, SEEDS, RATES = 20, (3, 4), (1e-3, 2e-3)
ENCODER = ModelOptions(
    layers=1,
    width=16,
    heads=2,
    ffn=32,
    embedding=16,
    positions=16,
    types=2,
    init_std=0.02,
    dropout=0.1,
    attention_dropout=0.1,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
OPTIM = OptimOptions(
    name="adam",
    peak_lr=None,
    layer_decay=None,
    layer_decay_off_by_one=False,
    warmup=0.1,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.0,
    clip_norm=1.0,
    frozen_layers=0,
)


def make_spec(**optim: object) -> StepSpec:
    head = HeadSpec(
        kind="classify", style="hf", outputs=3, dropout=0.1, init_std=0.02, dtype="float32"
    )
    network = NetworkSpec(dims=Dimensions(ENCODER.random(), 50), heads=(("task", head),))
    return StepSpec(
        network=network,
        optim=dataclasses.replace(OPTIM, **optim),
        layer_decay=0.8,
        reduction="mean",
        steps=STEPS,
    )


@pytest.fixture(scope="module")
def data() -> rows.Rows:
    draw = np.random.default_rng(0)
    begin = np.concatenate([[0], np.cumsum(draw.integers(3, 16, 60))])
    ids = draw.integers(5, 50, begin[-1]).astype(np.int32)
    label = draw.integers(0, 3, 60).astype(np.int32)
    return rows.Rows(ids, np.zeros_like(ids), begin, {"label": label})


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    """One device: on eight fake ones of a busy machine every step waits for the slowest thread."""
    return meshes.build(meshes.MeshSpec(-1, 1), jax.devices()[:1])


@pytest.fixture(scope="module")
def ordered(data) -> order.Order:
    return order.Order(data.lengths, (16,), 16, 0)


@pytest.fixture(scope="module")
def one_after_another(data, mesh, ordered) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses [runs, steps] of two runs, and the parameters the second ended with."""
    program = Program(make_spec(), mesh)
    losses = []
    for seed, rate in zip(SEEDS, RATES, strict=True):
        state = program.init(None, [seed], [rate])
        losses.append([])
        for step in range(STEPS):
            batch = data.batch(ordered.rows(step, seed), ordered.bucket(step))
            state, told = program.step("task", state, batch)
            losses[-1].append(float(told["loss"]))
    return np.array(losses), arrays.flatten(jax.device_get(state["params"]))


@pytest.mark.slow
def test_runs_in_one_program_are_the_runs_one_after_another(data, mesh, ordered, one_after_another):
    """Catches a seed or a learning rate that is another run's, and dropout that differs between the ways."""
    program = Program(make_spec(), mesh, len(SEEDS))
    state = program.init(None, SEEDS, RATES)
    losses = []
    for step in range(STEPS):
        length = ordered.bucket(step)
        batches = [data.batch(ordered.rows(step, seed), length) for seed in SEEDS]
        state, told = program.step("task", state, rows.stack(batches))
        losses.append(np.asarray(told["loss"]))
    apart, last = one_after_another
    np.testing.assert_allclose(np.array(losses).T, apart, rtol=1e-5)
    assert not np.allclose(apart[0], apart[1], rtol=1e-3)
    for name, x in arrays.flatten(jax.device_get(state["params"])).items():
        np.testing.assert_allclose(x[1], last[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_meshes_and_micro_batches_change_only_rounding(data, ordered, one_after_another):
    """Catches a mean over a micro-batch, dropout that is numbered within one, and a state that every device keeps
    whole: four devices, two by two, each batch in two parts."""
    spec = dataclasses.replace(make_spec(), accumulation=2)
    program = Program(spec, meshes.build(meshes.MeshSpec(2, 2), jax.devices()[:4]))
    state = program.init(None, [SEEDS[0]], [RATES[0]])
    losses = []
    for step in range(4):
        batch = data.batch(ordered.rows(step, SEEDS[0]), ordered.bucket(step))
        state, told = program.step("task", state, batch)
        losses.append(float(told["loss"]))
    np.testing.assert_allclose(losses, one_after_another[0][0][:4], rtol=1e-5)
    moments = arrays.flatten(state["opt_state"])
    kernels = [x for name, x in moments.items() if name.endswith("up/kernel")]
    assert kernels
    assert {x.addressable_shards[0].data.size * 2 == x.size for x in kernels} == {True}


@pytest.mark.parametrize(
    ("shape", "width", "devices", "parts"),
    [
        ((32, 128), 256, 1, 4),
        ((32, 320), 256, 1, 16),  # 10 parts would be enough, but do not divide 32 rows
        ((32, 128), 64, 1, 1),
        ((32, 128), 1024, 1, 4),
        ((32, 256), 256, 4, 2),
        ((2, 4, 512), 256, 1, 2),  # four choices of a question stay together
        ((1, 4096), 256, 1, 1),
    ],
)
def test_micro_batches_for_a_cpu(shape, width, devices, parts):
    """Catches parts that do not divide the rows of a device, and those of an accelerator cut too."""
    on_cpu = meshes.build(meshes.MeshSpec(-1, 1), jax.devices()[:devices])
    assert meshes.on_mesh(micro_batches, on_cpu)(shape, width) == parts
    chip = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("data",), abstract_device=chip)):
        assert micro_batches(shape, width) == 1


def test_frozen_layers_keep_their_values(data, mesh, ordered):
    """Catches weight decay or moments that move what is frozen."""
    program = Program(make_spec(frozen_layers=1, weight_decay=0.1), mesh)
    state = program.init(None, [0], [1e-2])
    before = arrays.flatten(jax.device_get(state["params"]))
    for step in range(3):
        state, _ = program.step("task", state, data.batch(ordered.rows(step, 0), 16))
    for name, x in arrays.flatten(jax.device_get(state["params"])).items():
        assert np.array_equal(x, before[name]) != name.startswith("heads_"), name


@pytest.mark.slow
def test_padding_and_empty_rows_change_nothing(data, mesh):
    """Catches a loss that is divided by the size of a batch that is not full."""
    spec = make_spec()
    still = dataclasses.replace(ENCODER, dropout=0.0, attention_dropout=0.0)
    head = dataclasses.replace(spec.network.head("task"), dropout=0.0)
    network = NetworkSpec(dims=Dimensions(still.random(), 50), heads=(("task", head),))
    program = Program(dataclasses.replace(spec, network=network), mesh)
    short = np.flatnonzero(data.lengths <= 8)[:8]
    half = np.concatenate([short, np.full(8, order.FILLER)])
    losses = []
    for numbers, length in ((short, 8), (half, 16)):
        state = program.init(None, [0], [1e-3])
        losses.append(float(program.step("task", state, data.batch(numbers, length))[1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_muon_runs_in_one_program_with_a_rate_each(data, mesh, ordered):
    """Catches Newton-Schulz over the axis of runs, rates by layer that its scale undoes, and a state without a rule of
    placement: one step of two runs is that of each alone, and a lower layer's matrix moves by its factor."""
    spec = make_spec(name="muon", momentum=0.9, adam_ratio=0.5, warmup=0.0)
    batch = data.batch(ordered.rows(0, 3), 16)
    alone, both = Program(spec, mesh), Program(spec, mesh, 2)
    begun = alone.init(None, [3], [1e-2])
    before = arrays.flatten(jax.device_get(begun["params"]))
    after, _ = alone.step("task", begun, batch)
    after = arrays.flatten(jax.device_get(after["params"]))
    together, _ = both.step("task", both.init(None, [3, 3], [1e-2, 2e-2]), rows.stack([batch] * 2))
    for name, x in arrays.flatten(jax.device_get(together["params"])).items():
        moved = after[name] - before[name]
        assert np.allclose(x[0] - before[name], moved, rtol=1e-3, atol=1e-6), name
        assert np.allclose(x[1] - before[name], 2 * moved, rtol=1e-3, atol=1e-6), name
    moved = {name: np.linalg.norm(after[name] - before[name]) for name in after}
    query, dense = "encoder/layer_0/query/kernel", "heads_task/dense/kernel"
    assert moved[query] / moved[dense] == pytest.approx(0.8, rel=0.2)
