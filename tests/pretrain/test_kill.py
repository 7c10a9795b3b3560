"""Kill -9 the real command at any moment and start it again: nothing that was learned or logged is lost.

`tools/faults.py` does the same twenty times; here are three moments of the training run and one of preparation.
"""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
TOOL = Path(__file__).parents[2] / "tools" / "faults.py"


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_killed_and_started_again_it_ends_as_if_undisturbed(faults, tmp_path):
    """Catches state that is neither in the checkpoint nor a function of the step, and a line logged twice or lost:
    killed while it compiles, saves and evaluates, at seeded steps; every line and every bit is compared."""
    data = faults.make_data(tmp_path)
    undisturbed = faults.Run(tmp_path / "undisturbed", data, tmp_path / "cache")
    undisturbed.finish()
    run = faults.Run(tmp_path / "run", data, tmp_path / "cache")
    planned = faults.moments(random.Random(0), ["compiling", "saving", "evaluating"])
    print([run.hit(moment) for moment in planned])
    run.finish()
    lines, arrays = run.result()
    keys = [(line["step"], line["split"]) for line in run.lines()]
    assert len(set(keys)) == len(keys)
    assert {step for step, split in keys if split == "train"} == set(range(1, faults.STEPS + 1))
    assert (lines, arrays) == undisturbed.result()  # checksums of the optimizer's state, too
    assert len(arrays) > 80


def test_killed_preparation_leaves_no_data_behind(faults, tmp_path):
    """Catches a folder under its final name with shards that end in the middle."""
    assert faults.kill_preparation(tmp_path, random.Random(0))["moment"] == "preparing"
