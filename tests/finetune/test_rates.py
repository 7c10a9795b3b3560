"""Layer-wise learning rates: the published rule, the released code's, and frozen layers."""

import jax.numpy as jnp
import pytest

from electra_jax.finetune import rates
from electra_jax.learn import arrays
from electra_jax.learn.optim import OptimSpec
from electra_jax.learn.parts import Part, split

NAMES = (
    "embeddings/word",
    "encoder/project/kernel",
    "encoder/layer_0/up/kernel",
    "encoder/layer_11/up/kernel",
    "encoder/final_norm/scale",
    "heads_sst2/out/kernel",
)
OPTIM = OptimSpec(
    name="adam",
    peak_lr=1.0,
    warmup=0,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.0,
    clip_norm=1.0,
)
PARAMS = arrays.nest({name: jnp.zeros(1) for name in NAMES})


@pytest.mark.parametrize(
    ("off_by_one", "frozen", "expected"),
    [
        (False, 0, (0.8**13, 0.8**13, 0.8**12, 0.8, 0.8, 1)),
        (True, 0, (0.8**14, 0.8**14, 0.8**13, 0.8**2, 0.8**2, 1)),  # optimization.py:181-193
        (False, -1, (0, 0, 0.8**12, 0.8, 0.8, 1)),
        (False, 1, (0, 0, 0, 0.8, 0.8, 1)),
        (False, 12, (0, 0, 0, 0, 0, 1)),
    ],
)
def test_the_factor_of_every_depth(off_by_one, frozen, expected):
    """Catches a decay that starts at the wrong layer, and layers that learn although they are frozen."""
    whole = Part(optim=OPTIM, steps=1)
    parts = rates.parts(whole, layers=12, decay=0.8, off_by_one=off_by_one, frozen=frozen)
    found = {}
    for part in parts:
        for name in arrays.flatten(split(parts, PARAMS)[part.name]):
            found[name] = part.factor(name) if part.optim and part.factor else 0
    assert tuple(found[name] for name in NAMES) == pytest.approx(expected)
