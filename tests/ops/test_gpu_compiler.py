"""The train step compiled for H100s that are not there: its kernels, its exchanges, what may not be in its memory."""

import importlib.util
import re

import pytest

from electra_jax.bench.synthetic import synthetic
from electra_jax.learn import mesh as meshes
from electra_jax.objective.corrupt import slot_count
from electra_jax.plan import gpu
from electra_jax.plan.weighed import weigh
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        all(importlib.util.find_spec(f"jax_cuda{n}_plugin") is None for n in (12, 13)),
        reason="no GPU compiler; pip install -e '.[test-cuda]'",
    ),
]

DEVICES, ROWS, LENGTH, VOCAB = 8, 64, 128, 30_522  # rows of a device


@pytest.fixture(scope="module")
def devices():
    """Eight H100s of a box."""
    return gpu.devices(gpu.Box("h100", DEVICES))


def kernels(text: str) -> list[str]:
    """Names of a compiled program's kernels, as often as they are called."""
    return re.findall(r'__gpu\$xla\.gpu\.triton".*?name = "([a-z_]+?)_*\d*"', text)


@pytest.mark.parametrize("dropout", ["0.1", "0.0"])
def test_the_step_has_its_kernels_and_no_large_array(dropout, devices):
    """Catches kernels that the compiler refuses, or that a shape, a dtype or a mesh no longer gets, activations that
    are gathered, and an array of all logits or of all attention weights."""
    changes = [f"train.batch={DEVICES * ROWS}", "model.layers=1", f"model.dropout={dropout}"]
    config = load_config("small", [*changes, f"model.attention_dropout={dropout}"])
    run = run_spec(config.to_dict())
    (phase,) = run.phases(synthetic(LENGTH, VOCAB))
    built = program.build(run, phase, meshes.build(run.mesh, devices))
    compiled = built.compile_train_step()
    text = compiled.as_text()
    names = kernels(text)
    # Two networks of one layer, each with two norms in it and one of the embeddings.
    expected = {
        "attention_forward",
        "attention_queries",
        "attention_keys",
        "gelu",
        "gelu_backward",
    }
    expected |= {"residual_norm", "residual_norm_backward", "norm", "norm_backward"}
    expected |= {"vocab_forward", "vocab_backward"}
    assert set(names) == expected
    assert names.count("residual_norm") == 4
    assert names.count("attention_forward") == 2
    assert f"[{ROWS},4,{LENGTH},{LENGTH}]" not in text  # attention weights
    weighed = weigh(compiled)
    assert {c.kind for c in weighed.collectives} == {"all-reduce"}
    logits = ROWS * slot_count(0.15, LENGTH) * VOCAB * 2
    for buffer in weighed.buffers:
        assert buffer.bytes < logits, buffer


def test_fresh_parameters_are_a_short_program(devices):
    """Catches draws that XLA takes apart again, each with its own logarithm: twelve layers would compile minutes."""
    run = run_spec(load_config("small", ["model.layers=4", f"train.batch={DEVICES}"]).to_dict())
    (phase,) = run.phases(synthetic(LENGTH, VOCAB))
    text = (
        program.build(run, phase, meshes.build(run.mesh, devices)).init.lower().compile().as_text()
    )
    assert 0 < text.count(" log-plus-one(") <= 20  # of 57 draws


@pytest.mark.parametrize("runs", [0, 2])
def test_fine_tuning_has_the_kernels(runs, devices, fine_tuning):
    """Catches kernels that cannot be vectorised over several runs in one program."""
    actual = set(kernels(fine_tuning(devices, runs)))
    assert {"attention_forward", "attention_keys", "residual_norm", "gelu_backward"} <= actual
