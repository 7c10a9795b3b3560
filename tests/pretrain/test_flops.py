"""FLOPs and hardware peaks: against published figures, and against XLA's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from electra_jax.learn import hardware
from electra_jax.model import flops
from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.model.tokens import Tokens
from electra_jax.objective import registry
from electra_jax.spec import load_config
from electra_jax.text.special import SpecialIds

# The paper's settings (ELECTRA, Clark et al. 2020, table 6).
SMALL = {
    "layers": 12,
    "width": 256,
    "heads": 4,
    "ffn": 1024,
    "embedding": 128,
    "generator_size": 1 / 4,
}
BASE = {
    "layers": 12,
    "width": 768,
    "heads": 12,
    "ffn": 3072,
    "embedding": 768,
    "generator_size": 1 / 3,
}
LARGE = {
    "layers": 24,
    "width": 1024,
    "heads": 16,
    "ffn": 4096,
    "embedding": 1024,
    "generator_size": 1 / 4,
}


def dimensions(vocab_size=30522, **changes):
    rest = {
        "positions": 512,
        "types": 2,
        "generator_layers": 1.0,
        "tying": "embeddings",
        "remat": "none",
    }
    rest |= {"dropout": 0.1, "attention_dropout": 0.1, "init_std": 0.02}
    rest |= {"dtype": "float32", "residual_dtype": "float32"}
    return Dimensions(ModelSpec(**(rest | changes)), vocab_size)


def objective(dims, mask_prob=0.15, **changes):
    section = load_config("tiny").objective.to_dict() | {"mask_prob": mask_prob} | changes
    special = SpecialIds(0, 1, 2, 3, 4)
    return registry.make(section, dims.spec, dims.vocab_size, special, 128)


@pytest.mark.parametrize(
    ("size", "length", "mask", "per_token"),
    [
        (BASE, 128, 0.15, 611e6),
        (BASE, 512, 0.15, 668e6),
        (SMALL, 128, 0.15, 70.2e6),
        (SMALL, 512, 0.15, 87.9e6),
        (SMALL | {"generator_size": 1.0}, 128, 0.15, 127e6),
        (SMALL | {"generator_size": 1.0}, 512, 0.15, 155e6),
        (LARGE, 512, 0.25, 2.17e9),
    ],
)
def test_agrees_with_the_figures_of_the_survey_of_peers(size, length, mask, per_token):
    """Catches a forgotten term (attention, projection, head) or a head counted at every position.

    The figures are independent arithmetic on the published sizes, rounded to three digits; large
    masks a quarter of the tokens, as the paper does.
    """
    found = flops.PASSES * objective(dimensions(**size), mask).flops(length) / length
    assert found == pytest.approx(per_token, rel=0.005)


@pytest.mark.parametrize("tying", ["embeddings", "none", "all"])
def test_agrees_with_what_xla_counts_in_a_forward_pass(tying):
    """Catches a formula that has drifted from the model: the compiler counts the real forward pass."""
    dims = dimensions(
        vocab_size=2048,
        layers=2,
        width=256,
        heads=4,
        ffn=1024,
        embedding=128,
        generator_size=0.5,
        tying=tying,
    )
    batch, length, slots = 2, 128, 19
    model = Electra(dims)
    ids = jnp.zeros((batch, length), jnp.int32)
    chosen = jnp.zeros((batch, slots), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = Tokens(ids, ids, ids + 1, ids)

    def forward(params):
        hidden, table, bias = model.apply(params, tokens, chosen, method=Electra.generate)
        # Other ids: no shared work.
        others = tokens._replace(ids=ids + 1)
        scores = model.apply(params, others, method=Electra.discriminate)
        return hidden @ table.T + bias[None, None], scores

    counted = jax.jit(forward).lower(params).compile().cost_analysis()["flops"]
    ours = batch * objective(dims).flops(length)
    # XLA also counts the element-wise work that the formula leaves out on purpose.
    assert ours < counted < 1.1 * ours


def test_objectives_that_run_fewer_networks_count_fewer():
    """Catches an ablation that is credited with the work of a network it does not run."""
    dims = dimensions(**BASE)
    electra, uniform, mlm = (
        objective(dims, **changes).flops(128)
        for changes in ({}, {"uniform_generator": True}, {"name": "mlm"})
    )
    assert uniform < mlm < electra


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v2", 22.5),
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
        ("TPU7x", 1153.5),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A1000", None),
        ("cpu", None),
    ],
)
def test_peaks_by_the_names_jax_gives(kind, teraflops):
    """Catches an L40S taken for an L4, a v5p for a v5e, and a guess for an unknown device."""
    assert hardware.peak_of(kind) == (
        None if teraflops is None else pytest.approx(teraflops * 1e12)
    )


def test_measured_matmul_and_utilisation(monkeypatch):
    """Catches a measurement of dispatch alone (absurd FLOP/s) and peaks not summed over devices."""
    monkeypatch.setattr(hardware, "_TIMED_S", 0.005)
    hardware.matmul_peak.cache_clear()
    measured = hardware.matmul_peak("float32")
    assert 1e8 < measured < 1e14
    assert hardware.matmul_peak("float32") == measured  # once per process
    found = hardware.utilisation(measured / 4, "float32")
    assert found == {"mfu": None, "mfu_of_matmul": pytest.approx(0.25)}

    @dataclasses.dataclass(frozen=True)
    class Chip:
        device_kind: str = "NVIDIA H200"
        platform: str = "gpu"
        process_index: int = 0

    found = hardware.utilisation(989.4e12, "float32", [Chip(), Chip()])
    assert found["mfu"] == pytest.approx(0.5)
    assert found["mfu_of_matmul"] == pytest.approx(989.4e12 / 2 / measured)
    hardware.matmul_peak.cache_clear()
