"""The runs of broken.py, trained for real: each is seen while it trains and after it, and the good ones are not."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from electra_jax import cli
from electra_jax.doctor import diagnosis
from electra_jax.doctor import run as runs

pytestmark = pytest.mark.slow
EXPECTED = {
    "well": set(),
    "tour": set(),
    "rate": {"plateau", "discriminator"},
    "generator": {"generator"},
    "labels": {"discriminator"},
    "copies": {"repetition"},
    "vocabulary": {"vocabulary"},
}


@pytest.fixture(scope="module")
def broken() -> ModuleType:
    """broken.py, which is a program and no module of a package."""
    spec = importlib.util.spec_from_file_location("broken", Path(__file__).with_name("broken.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(broken: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all cases."""
    folder = tmp_path_factory.mktemp("broken")
    broken.prepare(folder)
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_a_run_is_seen_for_what_it_is(name, broken, prepared, monkeypatch, capsys):
    """Catches a sign that reads what training no longer logs, and kept logs that no run would write any more."""
    assert EXPECTED.keys() == broken.CASES.keys()
    said = broken.train(prepared, name)
    told = set(re.findall(r"doctor: (\w+): ", said))
    monkeypatch.chdir(prepared)  # the record names its data from there
    bad = {one.sign for one in diagnosis.diagnose(runs.opened(name)).bad}
    assert told >= EXPECTED[name] and bad >= EXPECTED[name]
    if not EXPECTED[name]:
        assert told == bad == set()
    assert cli.main(["doctor", name]) == bool(bad)
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("not learning" if bad else "learning")
    )
    kept = json.loads((broken.LOGS / f"{name}.json").read_text())
    lines = broken.logged(prepared / name)["lines"]
    assert [(x["step"], x["split"], x.keys()) for x in lines] == [
        (x["step"], x["split"], x.keys()) for x in kept["lines"]
    ]
