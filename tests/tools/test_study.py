"""The study of arms: equal cost, verdicts by the rule, rows that stay."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from electra_jax.bench.synthetic import synthetic


@pytest.fixture(scope="module")
def study(root: Path) -> ModuleType:
    """tools/study.py as a module, beside the tool that it imports."""
    sys.path.insert(0, str(root / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("study", root / "tools" / "study.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["study"] = module  # dataclasses look there
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(root / "tools"))
    return module


def test_a_difference_counts_beyond_twice_the_pooled_deviation(study):
    """Catches a verdict by the deviation of one arm, and one that takes chance for a difference."""
    rows = [
        {"arm": arm, "figure": "CoLA", "value": value, "seed": seed}
        for arm, values in (("electra", (10.0, 12.0, 11.0)), ("electra-mlm", (13.5, 14.5, 14.0)))
        for seed, value in enumerate(values)
    ]
    assert study.pooled([[10, 12, 11], [13.5, 14.5, 14]]) == pytest.approx((2.5 / 4) ** 0.5)
    assert "14.0 ± 0.5 (**+3.0**)" in study.table(rows)
    near = [row | {"value": row["value"] - 2} if row["arm"] != "electra" else row for row in rows]
    assert "12.0 ± 0.5 (+1.0)" in study.table(near)
    single = [row for row in rows if row["seed"] == 0]
    assert "(+3.5)" in study.table(single) and "not known" in study.table(single)


def test_every_control_is_an_arm(study):
    """Catches an arm beside a control of a name that no arm has, whose difference is never shown."""
    names = [arm.name for arm in study.ARMS]
    assert len(set(names)) == len(names)
    assert {arm.control for arm in study.ARMS if arm.control} <= set(names)


def test_every_arm_is_accepted(study):
    """Catches an arm with a setting that `pretrain` does not know, met after hours of other runs."""
    for arm in study.ARMS:
        run = study.options_of(arm.settings.split())
        run.make_objective(synthetic(study.LENGTH, 4096))


def test_figures_stay_and_the_rule_is_kept(study, tmp_path):
    """Catches a figure that another start loses, one that is there twice, and a rule that the tables overwrite."""
    page = tmp_path / "modern.md"
    page.write_text("# The rule\n\nSaid before.\n")
    options = Namespace(output=str(tmp_path / "modern"), flops=1e12)
    runs = [study.Run(language=study.LANGUAGES[0], arm=study.ARMS[0], seed=seed) for seed in (0, 1)]
    for run, value in zip([*runs, runs[0]], (1.0, 2.0, 3.0), strict=True):
        study.record(options, run, "CoLA", value)
    text = page.read_text()
    assert text.startswith("# The rule\n\nSaid before.\n") and text.count("| electra |") == 1
    assert "2.500" in text
