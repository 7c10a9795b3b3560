"""The comparison of fast and plain steps: its verdict."""

import importlib.util
from pathlib import Path

import pytest

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


def test_the_plain_step_is_plain(monkeypatch):
    """Catches an operation that has moved: the plain step would be the fast one, and the comparison say nothing."""
    from electra_jax.model import heads
    from electra_jax.ops import feedforward, vocab_head

    for module, name in ((heads, "gelu"), (feedforward, "gelu"), (vocab_head, "TILE")):
        monkeypatch.setattr(module, name, getattr(module, name))  # is put back
    fast = heads.gelu
    assert feedforward.gelu is fast
    learning.plain()
    assert feedforward.gelu is heads.gelu is not fast
    assert vocab_head.TILE > 1 << 20
