"""The evidence: equal FLOPs, rows that stay, and baselines by the same metrics."""

import importlib.util
import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from electra_jax.data.prepare import build
from electra_jax.objective import registry
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config
from electra_jax.text.special import SpecialIds


@pytest.fixture(scope="module")
def evidence(root: Path) -> ModuleType:
    """tools/evidence.py as a module."""
    spec = importlib.util.spec_from_file_location("evidence", root / "tools" / "evidence.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_masked_lm_gets_the_same_flops(evidence, tmp_path):
    """Catches a comparison at equal steps, which gives ELECTRA half as much work again, or of one phase alone."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "text.txt").write_text("a b c .\n\n" * 200)
    for length in (16, 32):
        build.prepare(
            [str(tmp_path / "text.txt")],
            *(tmp_path / "vocab.txt", length, tmp_path / str(length)),
            valid_fraction=0.1,
            workers=1,
        )
    config = load_config("electra-mini").to_dict()
    config["data"]["path"] = str(tmp_path / "16")
    config["train"]["steps"] = 1_500
    config["train"]["phases"] = (
        {"steps": 1_000, "batch": 32},
        {"steps": 500, "path": str(tmp_path / "32"), "batch": 8},
    )
    phases = evidence.equally_expensive({"config": config})
    assert [Path(phase["path"]).name for phase in phases] == ["16", "32"]
    run = run_spec(config)
    for phase, length, steps in zip(phases, (16, 32), (1_000, 500), strict=True):
        special = SpecialIds(0, 1, 2, 3, 4)
        cost = {
            kind: phase["batch"]
            * registry.make(
                {**run.objective, "name": kind}, run.model, len(words), special, length
            ).flops(length)
            for kind in ("electra", "mlm")
        }
        assert phase["steps"] > 1.5 * steps
        assert phase["steps"] * cost["mlm"] == pytest.approx(steps * cost["electra"], rel=1e-3)


def test_a_finished_row_is_written_at_once_and_stays(evidence, tmp_path):
    """Catches rows that are lost, doubled or out of order when the command goes on."""
    options = Namespace(output=str(tmp_path / "table"))
    cola, sst2 = evidence.ENTRIES[:2]
    for entry, encoder, scores in (
        (sst2, "electra", [80.0, 82.0, 84.0]),
        (cola, "majority", [0.0]),
        (cola, "electra", [10.0, 11.0, 12.0]),
        (sst2, "electra", [81.0, 82.0, 83.0]),
    ):
        metric = {"cola": "mcc", "sst2": "accuracy"}[entry.task]
        result = {"scores": [{metric: s} for s in scores], "seconds": 1.0}
        evidence.record(options, entry, encoder, result)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(r["task"], r["encoder"]) for r in rows] == [
        ("CoLA", "majority"),
        ("CoLA", "electra"),
        ("SST-2 (20,000)", "electra"),
    ]
    assert "| CoLA | mcc | 3 | 11.0 ± 1.0 |  |  | 0.0 |" in (tmp_path / "table.md").read_text()


def test_always_the_most_frequent(evidence, shared):
    """Catches a baseline that is not that of the data's own description (279 of 408, MCC 0)."""
    by_task = {entry.task: entry for entry in evidence.ENTRIES}
    assert evidence.majority(by_task["cola"], shared)["mcc"] == 0
    assert evidence.majority(by_task["mrpc"], shared)["accuracy"] == pytest.approx(100 * 279 / 408)
    assert evidence.majority(by_task["stsb"], shared)["spearman"] == 0
    assert evidence.majority(by_task["ner"], shared)["f1"] == 0
