"""The comparison of fast and plain steps: its verdict."""

import importlib.util
from pathlib import Path

import jax
import pytest

from electra_jax.bench.synthetic import synthetic
from electra_jax.learn import mesh as meshes
from electra_jax.ops import kernel
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

SPEC = importlib.util.spec_from_file_location(
    "learning", Path(__file__).parents[2] / "tools" / "learning.py"
)
learning = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(learning)


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, "within it"), (0.2, "NOT within it")])
def test_means_are_judged_by_the_spread_of_the_seeds(shift, verdict):
    """Catches a spread over both steps together, which would excuse any difference between them."""
    found = {
        (variant, seed): {"mlm_loss": 5 + 0.05 * seed + by, "disc_auc": 0.6}
        for variant, by in (("fast", 0.0), ("plain", shift))
        for seed in range(3)
    }
    said = next(x for x in learning.table(found, "plain").splitlines() if x.startswith("mlm_loss"))
    assert said.endswith(f": {verdict}")
    assert f"{shift:.4f} apart; seeds spread over 0.1000" in said


def test_the_plain_step_is_plain():
    """Catches an operation that is fast in both steps: what was written by hand would be compared with itself."""
    run = run_spec(load_config("small", ["model.layers=1", "train.batch=8"]).to_dict())
    (phase,) = run.phases(synthetic(32, 3000))  # more than a tile
    taken = {}
    for variant in ("fast", "plain"):
        built = program.build(run, phase, meshes.build(run.mesh, jax.devices()[:1]))
        with learning.implementations(variant), kernel.recorded() as taken[variant]:
            built.train_step.lower(built.abstract_state, built.abstract_batch)
    fast, plain = ({x.partition("/")[0]: x for x in taken[v]} for v in ("fast", "plain"))
    assert all(x == f"{name}/plain" for name, x in plain.items())
    by_hand = {"product", "scores", "gelu", "layer_norm", "take_of_few", "vocabulary_head"}
    assert by_hand <= {name for name, x in fast.items() if x != f"{name}/plain"} & plain.keys()
