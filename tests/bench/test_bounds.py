"""What holds on every machine: the work, memory and exchanges of the compiled step, against bounds."""

import re

import jax
import pytest
from jax.sharding import Mesh

from electra_jax.bench.synthetic import synthetic
from electra_jax.learn import mesh
from electra_jax.objective.corrupt import slot_count
from electra_jax.plan.weighed import Weighed, weigh
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.pretrain.speed import useful_flops
from electra_jax.spec import load_config

pytestmark = pytest.mark.slow
BATCH, LENGTH, VOCAB = 64, 128, 30_592
MIB = 2**20


@pytest.fixture(scope="module")
def step() -> tuple[Weighed, str, float]:
    """ELECTRA-Small with one layer on eight devices: (the compiled step weighed, its text, useful FLOPs a device)."""
    sizes = ["model.layers=1", "model.dtype=float32", f"train.batch={BATCH}", "mesh.data=8"]
    run = run_spec(load_config("small", [*sizes, "mesh.fsdp=1"]).to_dict())
    (phase,) = run.phases(synthetic(LENGTH))
    devices: Mesh = mesh.build(run.mesh)
    compiled = program.build(run, phase, devices).compile_train_step()
    return weigh(compiled), compiled.as_text(), useful_flops(run, phase) / devices.size


def at_most(what: str, found: float, bound: float) -> None:
    assert found <= bound, f"{what}: {found:,.4g}, more than the bound of {bound:,.4g}"


def test_executed_against_useful_flops(step):
    """Catches work that nobody asked for: a head on all positions, a layer computed twice. What is over 1 here is the
    second computation of the head's logits, of which one layer has a large share (1.08 with two layers)."""
    weighed, _, useful = step
    assert not weighed.unknown_loops
    at_most("executed / useful FLOPs", weighed.flops / useful, 1.13)


def test_memory(step):
    """Catches an array of all logits, [B, K, V] or [B, L, V], and temporaries that grew."""
    weighed, _, _ = step
    logits = BATCH // jax.device_count() * slot_count(0.15, LENGTH) * VOCAB * 4
    at_most("largest buffer, MiB", weighed.buffers[0].bytes / MIB, 0.9 * logits / MIB)
    at_most("temporaries, MiB", weighed.memory.temporaries / MIB, 100)


def test_exchanges(step):
    """Catches an activation or a parameter gathered, and gradients added up more than once or in a loop."""
    weighed, _, _ = step
    kinds = [c.kind for c in weighed.collectives]
    assert set(kinds) == {"all-reduce"}, kinds
    at_most("all-reduces", len(kinds), 3)
    at_most("runs of an all-reduce", max(c.runs for c in weighed.collectives), 1)


def test_no_host_in_the_step(step):
    """Catches a callback or a transfer compiled into the step."""
    _, text, _ = step
    assert re.findall(r"\b(?:infeed|outfeed|send|recv)\(|callback", text) == []
