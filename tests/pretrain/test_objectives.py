"""Every objective but the two that all other tests are about: a run of each, from its start to an export."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from electra_jax.convert import hf
from electra_jax.finetune import start as finetune
from electra_jax.finetune.options import ModelOptions
from electra_jax.learn import checkpoint
from electra_jax.learn.arrays import flatten
from electra_jax.objective import registry
from electra_jax.pretrain import evaluate, loop
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError, from_config, load_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cheap")]
SHORT = ("train.steps=4", "train.eval_every=4", "train.checkpoint_every=2", "optim.warmup=1")
MODERN = {"family": "modern", "types": 1, "dropout": 0.0, "embedding": 16, "generator_size": 1.0}
# Objective -> the models that it leaves.
LEFT = {
    "electra_15": ["discriminator", "generator"],
    "replace_mlm": ["model", "generator"],
    "all_tokens_mlm": ["model", "generator"],
    "electric": ["discriminator"],
    "adversarial": ["discriminator", "generator"],
}


def of(name: str) -> tuple[str, ...]:
    return (*SHORT, f"objective.name={name}")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_none_is_forgotten():
    """Catches an objective that no run has been seen of."""
    begun = {"frozen", "two_stage"}  # with another run's model: test_origin.py
    assert {"electra", "mlm", *LEFT, *begun} == registry.KNOWN.keys()


@pytest.mark.parametrize("name", LEFT)
def test_a_run(name: str, config: Callable[..., Any], tmp_path: Path):
    """Catches state that a checkpoint lacks, a metric that is not finite, a model that does not leave."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    loop.pretrain(config(*of(name)), whole)
    loop.pretrain(config(*of(name), "train.stop_at=2"), stopped)
    loop.pretrain(None, stopped, ["train.stop_at=0"])
    one, other = (flatten(checkpoint.read_params(folder)[1]) for folder in (whole, stopped))
    assert one.keys() == other.keys()
    assert [path for path in one if one[path].tobytes() != other[path].tobytes()] == []
    (held_out,) = (line for line in lines(whole) if line["split"] == "valid" and line["step"])
    assert all(math.isfinite(x) for x in held_out.values() if isinstance(x, float)), held_out
    again = evaluate.evaluate_workdir(whole)
    assert again["loss"] == held_out["loss"]
    assert hf.export(whole, tmp_path / "hf") == LEFT[name]
    found = finetune.read(
        str(whole), from_config(ModelOptions, load_config("finetune").model, "model")
    )
    assert found.params is not None and sorted(found.tree or {}) == ["embeddings", "encoder"]
    with pytest.raises(UserError, match=f"objective.name: was '{name}', now 'electra'"):
        starts.open_run(config(*SHORT), whole)


@pytest.mark.parametrize("name", LEFT)
def test_a_run_of_the_modern_family(name: str, config: Callable[..., Any], tmp_path: Path):
    """Catches modules of one family in an objective that takes both."""
    options = config(*of(name)).to_dict()
    loop.pretrain(ConfigDict(options | {"model": options["model"] | MODERN}), tmp_path / "run")
    (held_out,) = (l for l in lines(tmp_path / "run") if l["split"] == "valid" and l["step"])
    assert all(math.isfinite(x) for x in held_out.values() if isinstance(x, float)), held_out
