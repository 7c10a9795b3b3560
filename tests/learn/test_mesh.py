"""Meshes and placement: one rule for every array, and a mesh that changes no number."""

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from electra_jax.data.source import Prepared
from electra_jax.learn import mesh as meshes
from electra_jax.learn import step
from electra_jax.learn.arrays import flatten
from electra_jax.learn.mesh import PLACEMENT, ROWS, MeshSpec
from electra_jax.objective.corrupt import MaskOptions
from electra_jax.plan import weighed
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.pretrain.program import Program
from electra_jax.spec import UserError, load_config
from electra_jax.text.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
BATCH, LENGTH, VOCAB = 16, 24, 300  # padded to 384, a size that nothing else has
DATA = Prepared(Path("rows"), LENGTH, {"train": 99, "valid": 9}, VOCAB, SPECIAL, "", "", {})
SMALL = ("model.layers=1", "model.ffn=128", "model.positions=40", f"train.batch={BATCH}")


def mesh(data: int, fsdp: int) -> Mesh:
    return Mesh(np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp), ("data", "fsdp"))


def make(on: Mesh, *overrides: str) -> Program:
    run = run_spec(load_config("tiny", [*SMALL, *overrides]).to_dict())
    return program.build(run, run.phases(DATA)[0], on)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("objective", "tying"),
    [
        *(("electra", tying) for tying in ("embeddings", "none", "all")),
        *((name, "embeddings") for name in ("mlm", "all_tokens_mlm", "adversarial")),
        ("electric", "none"),
    ],
)
def test_every_array_has_exactly_one_rule(objective: str, tying: str, optimizer: str):
    """Catches a pattern so wide that it takes another's arrays, and a new array that falls to a rule
    it was not meant for: matrices of networks and word tables are split, all else is copied."""
    overrides = (f"objective.name={objective}", f"model.tying={tying}", f"optim.name={optimizer}")
    state = flatten(make(mesh(4, 2), *overrides).abstract_state)
    assert len(state) > 80
    for name, leaf in state.items():
        rules = [spec for pattern, spec in PLACEMENT if re.search(pattern, name)]
        assert len(rules) == 1, name
        split = len(leaf.shape) == 2 and not name.endswith(("/position", "/type"))
        assert leaf.sharding.spec == (P("fsdp", None) if split else P()), name
    moments = {name for name in state if name.startswith("opt_state")}
    params = {name for name in state if name.startswith("params/")}
    assert len(moments) == 2 * len(params) + (optimizer == "adamw")


def test_an_array_without_a_rule_is_an_error():
    """Catches an array that is silently copied to every device."""
    tree = {"params": {"head": {"gate": jnp.zeros((2, 2))}}}
    with pytest.raises(UserError, match="no placement rule matches params/head/gate"):
        meshes.place(tree, mesh(1, 1))


def test_a_split_that_does_not_divide_names_the_array():
    """Catches XLA's own error, which names no array and no setting."""
    with pytest.raises(
        UserError,
        match=r"mesh.fsdp=8 does not divide .*/project/kernel .*that divides 12.*, such as 4$",
    ):
        make(mesh(1, 8), "model.embedding=12")


@pytest.mark.parametrize(
    ("data", "fsdp", "shape"),
    [(-1, -1, (8, 1)), (-1, 1, (8, 1)), (-1, 2, (4, 2)), (2, -1, (2, 4)), (4, 2, (4, 2))],
)
def test_what_is_left(data: int, fsdp: int, shape: tuple[int, int]):
    """Catches -1 that takes all devices, or the wrong axis; and Explicit axes, which break gathers."""
    built = meshes.build(MeshSpec(data, fsdp))
    assert (built.shape["data"], built.shape["fsdp"]) == shape
    assert set(built.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("data", "fsdp", "message"),
    [
        (3, 1, "mesh data=3 x fsdp=1 does not fit 8 devices; the axes must multiply to 8"),
        (3, 1, "nearest that fits: data=8 x fsdp=1"),
        (-1, 3, "does not fit 8 devices.*nearest that fits: data=2 x fsdp=4"),
        (16, -1, "nearest that fits: data=8 x fsdp=1"),
        (2, 2, "nearest that fits: data=4 x fsdp=2"),
        (0, 8, "mesh.data=0 must be at least 1"),
        (8, -2, "mesh.fsdp=-2 must be at least 1"),
    ],
)
def test_impossible_meshes_are_refused(data: int, fsdp: int, message: str):
    """Catches a mesh that leaves devices idle without a word."""
    with pytest.raises(UserError, match=message):
        meshes.build(MeshSpec(data, fsdp))


@pytest.mark.parametrize(
    ("devices", "memory", "shape"),
    [
        (8, None, (8, 1)),  # unknown: copies
        (8, 17, (8, 1)),
        (8, 9, (4, 2)),
        (8, 3, (1, 8)),
        (8, 0.1, (1, 8)),  # nothing is enough: what there is
        (6, 9, (3, 2)),
        (3, 1, (3, 1)),  # three divides no array
    ],
)
def test_the_choice_follows_the_memory(devices: int, memory: float | None, shape: tuple):
    """Catches parameters copied to devices they do not fit, split without need, or split unevenly:
    memory is given in sizes of the parameters, of which state and gradient are four, a quarter of it."""
    shapes = {"word": (384, 32), "kernel": (16, 8), "bias": (8,)}
    params = {"a": {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}}
    state = {"params": params, "opt_state": {"mu": params, "nu": params}}
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    bytes_ = None if memory is None else int(size * memory)
    chosen = meshes.choose(MeshSpec(-1, -1, True), state, devices, bytes_)
    assert chosen == MeshSpec(*shape, True)
    assert meshes.choose(MeshSpec(2, -1), state, devices, bytes_) == MeshSpec(2, -1)


@dataclass(frozen=True)
class Chip:
    """What a mesh asks a TPU device for."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v6 lite"


def chips(slices: int, rows: int, columns: int) -> list[Chip]:
    """The chips of slices of rows x columns each, those of different slices mixed."""
    places = itertools.product(range(rows), range(columns), range(slices))
    return [Chip(i, slice, (row, column, 0)) for i, (row, column, slice) in enumerate(places)]


@pytest.mark.parametrize("slices", [2, 4])
@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (4, 4)])
def test_fsdp_lies_inside_a_slice(slices: int, rows: int, columns: int):
    """Catches parameters that are gathered over the data-centre network at every step, and, for every size that fits,
    devices whose order is that of their numbers, or an axis that the grid of chips has no side for."""
    over = chips(slices, rows, columns)
    inside = rows * columns
    for fsdp in (n for n in (1, 2, 4, 8, 16) if n <= inside):
        grid = meshes.arrange(meshes.by_slice(over), slices * inside // fsdp, fsdp)
        assert grid.shape == (slices * inside // fsdp, fsdp)
        assert set(grid.flat) == set(over)
        found = np.vectorize(lambda chip: chip.slice_index)(grid)
        expected = np.repeat(np.arange(slices), inside // fsdp)
        assert np.array_equal(found, np.repeat(expected[:, None], fsdp, 1)), (fsdp, found)


def test_the_mesh_of_two_slices(monkeypatch):
    """Catches a mesh of real devices, those of jax, that does not look at their slices, or has Explicit axes."""
    monkeypatch.setattr(meshes.jax, "devices", lambda: chips(2, 2, 4))
    built = meshes.build(MeshSpec(-1, 4))
    assert dict(built.shape) == {"data": 4, "fsdp": 4}
    assert [chip.slice_index for chip in built.devices[:, 0]] == [0, 0, 1, 1]
    assert set(built.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("data", "fsdp", "message"),
    [
        (1, 16, "mesh data=1 x fsdp=16 does not fit 2 slices of 8 devices: data spans the slices"),
        (1, 16, "multiple of 2, and fsdp lies inside a slice and must divide 8; nearest.*data=2 x fsdp=8"),
        (-1, 16, "does not fit 2 slices of 8 devices"),
        (1, -1, "does not fit 2 slices.*nearest that fits: data=2 x fsdp=8"),
        (3, -1, "does not fit 16 devices.*nearest that fits: data="),
        (4, 8, "does not fit 16 devices"),
    ],
)  # fmt: skip
def test_meshes_that_do_not_fit_the_slices(data: int, fsdp: int, message: str):
    """Catches a traceback, or an fsdp across slices, whose gathers would take all the time there is."""
    with pytest.raises(UserError, match=message) as refused:
        meshes.build(MeshSpec(data, fsdp), chips(2, 2, 4))
    assert "\n" not in str(refused.value)


def test_slices_of_different_sizes():
    """Catches a mesh that leaves devices of the larger slice out, or cuts across it."""
    uneven = [*chips(2, 2, 2), Chip(8, 1, (2, 0, 0))]
    with pytest.raises(UserError, match="slices of this run have 4, 5 devices"):
        meshes.build(MeshSpec(-1, -1), uneven)
    assert len(meshes.by_slice(jax.devices())) == 1  # a CPU knows no slices


def test_the_choice_ends_at_the_border_of_a_slice():
    """Catches a choice by memory alone, which `build` then refuses."""
    state = {"params": {"word": jax.ShapeDtypeStruct((64, 8), jnp.float32)}}
    assert meshes.choose(MeshSpec(-1, -1), state, 16, 1) == MeshSpec(1, 16)
    assert meshes.choose(MeshSpec(-1, -1), state, 16, 1, slices=2) == MeshSpec(2, 8)


@pytest.fixture(scope="module")
def text() -> Callable[[int, int], str]:
    """The compiled train step of a mesh, as text, made once."""

    @functools.cache
    def compiled(data: int, fsdp: int) -> str:
        return make(mesh(data, fsdp)).compile_train_step().as_text()

    return compiled


@pytest.mark.slow
def test_initial_parameters_do_not_depend_on_the_mesh():
    """Catches random numbers drawn shard by shard; only the last bits may differ, where a compiler
    cuts its vectors otherwise. And a state that is split by name only: each device holds its half."""
    one, eight = (make(mesh(*shape)).init() for shape in ((1, 1), (4, 2)))
    held = dict.fromkeys(jax.devices(), 0)
    for x in jax.tree.leaves(eight["opt_state"]):
        for shard in x.addressable_shards:
            held[shard.device] += shard.data.nbytes
    moments = [(name, x) for name, x in flatten(eight["opt_state"]).items()]
    split = sum(x.nbytes for name, x in moments if name.endswith(("/kernel", "/word")))
    copied = sum(x.nbytes for name, x in moments) - split
    assert set(held.values()) == {split / 2 + copied}
    assert copied < 0.1 * split
    assert eight["params"]["embeddings"]["word"].sharding.spec == P("fsdp", None)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        assert np.abs(np.asarray(x) - np.asarray(y)).max() < 2e-8


MOVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def moves(text: str) -> set[str]:
    """The collectives of a compiled program that move whole arrays (sums are all-reduces)."""
    return {op for op in MOVES if re.search(rf" {op}(-start)?\(", text)}


USES = {
    "word": 3,
    "position": 2,
    "type": 2,
}  # lookups of both networks, and the generator's output layer


def expected_bytes(data: int, fsdp: int) -> dict[str, float]:
    """The formula of docs/scaling.md: bytes of a step's collectives on each device."""
    params = flatten(make(mesh(1, 1)).abstract_state["params"])
    size = {name: 4 * leaf.size for name, leaf in params.items()}
    word = sum(size[name] for name in size if name.endswith("/word"))
    matrices = sum(size[name] for name in size if name.endswith("/kernel"))
    copied = sum(
        USES.get(name.rpartition("/")[2], 1) * size[name]
        for name in size
        if not name.endswith(("/word", "/kernel"))
    )
    everywhere = USES["word"] * word + copied
    if fsdp == 1:
        return {"all-reduce": matrices + everywhere}
    over_data = matrices / fsdp if data > 1 else 0
    return {"all-gather": matrices + word, "all-reduce": matrices + over_data + everywhere}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2)])
def test_collectives_are_those_of_the_formula(text, data: int, fsdp: int):
    """Catches a gather that the partitioner cannot split and answers with the whole batch on every
    device, logits at every position instead of the chosen ones, logits exchanged between devices, and
    parameters gathered twice."""
    step_text = text(data, fsdp)
    found = weighed.weigh_text(step_text).bytes_by_collective()
    expected = expected_bytes(data, fsdp)
    print(found, expected)
    assert set(found) == set(expected)
    for kind, size in expected.items():
        assert found[kind] == pytest.approx(size, rel=0.1), kind
    rows = BATCH // 8
    whole = (f"{BATCH},{LENGTH},64", f"{BATCH},3,384", f"{BATCH * 3},384")
    every_place = (f"{rows},{LENGTH},384", f"{rows * LENGTH},384", f"{BATCH},{LENGTH},384")
    for shape in (*whole, *every_place):
        assert f"[{shape}]" not in step_text
    assert re.search(rf"\[({rows},3|{rows * 3}),384\]", step_text)  # three slots a row


@pytest.mark.parametrize(
    "unit", [{"whole_word": False}, {"whole_word": True}, {"whole_word": True, "masking": "spans"}]
)
def test_masking_moves_no_rows(unit: dict):
    """Catches sorts, scans and scatters over a split batch that first bring all of it together."""
    options = MaskOptions(mask_prob=0.15, mask_split=(0.8, 0.1, 0.1), **unit)
    rows = NamedSharding(mesh(8, 1), ROWS)
    batch = {
        name: jax.ShapeDtypeStruct((16, 24), jnp.int32, sharding=rows)
        for name in ("ids", "docs", "word_starts")
    } | {"rows": jax.ShapeDtypeStruct((16,), jnp.int32, sharding=rows)}

    def corrupted(batch: dict) -> dict:
        return options.corrupt(batch, jax.random.key(0), SPECIAL, VOCAB)

    text = jax.jit(corrupted, out_shardings=rows).lower(batch).compile().as_text()
    assert not moves(text)


@pytest.mark.parametrize("parts", [1, 2])
def test_micro_batches_move_no_rows(parts: int):
    """Catches micro-batches of neighbouring rows, which lie on other devices."""
    rows = NamedSharding(mesh(8, 1), ROWS)
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=rows)

    def total(x: jax.Array) -> jax.Array:
        return step.accumulate(lambda part: jnp.sum(jnp.sin(part["x"])), {"x": x}, parts)

    assert not moves(jax.jit(total).lower(x).compile().as_text())
