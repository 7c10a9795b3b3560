"""docs/extending.md, as a user types it: files of their own in an empty folder, and no change to the package."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.cli.commands import main
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError, load_config

pytestmark = pytest.mark.usefixtures("cheap")
SMALL = ("--config.train.batch=8", "--config.model.layers=1", "--config.train.eval_batches=1")


def written(root: Path, folder: Path) -> None:
    """Writes the files of the page, each under the name in the comment above it."""
    page = (root / "docs" / "extending.md").read_text()
    for name, text in re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", page, re.DOTALL):
        (folder / name).write_text(text)


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, but for the page's files; the current one."""
    written(root, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labelled(path: Path, rows: int) -> None:
    draw = random.Random(0)
    lines = [f"{draw.choice(['bat', 'cen'])} dig mot\t{i % 2}" for i in range(rows)]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")


@pytest.mark.slow
def test_an_objective_and_a_recipe_of_ones_own(root, here, prepared_folder, capsys):
    """Catches a command that knows the package's objectives alone, or a page whose example does not run."""
    data = f"--config.data.path={prepared_folder}"
    own = ("--config.objective.name=mine.py", "--config.objective.share=0.2")

    def run(*words: str) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    tiny = ("pretrain", "--config", "tiny", "--workdir", "run", data, *own, *SMALL)
    average = "--config.train.average=0.9"
    run(*tiny, average, "--config.train.steps=6", "--config.train.stop_at=3")
    (here / "mine.py").rename(here / "gone.py")  # the workdir has a copy
    run("pretrain", "--workdir", "run", "--config.train.stop_at=0")
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 6 and 0 < lines[-1]["accuracy"] <= 1
    values = json.loads(run("evaluate", "--workdir", "run"))
    assert values["loss"] == pytest.approx(lines[-1]["loss"], rel=1e-6)
    averaged = json.loads(run("evaluate", "--workdir", "run", "--average"))
    assert averaged["average"] == 0.9 and averaged["loss"] != values["loss"]
    run("export", "--workdir", "run", "--output", "hf")
    run("export", "--workdir", "run", "--output", "averaged", "--average")
    tensors = [
        (here / n / "encoder" / "model.safetensors").read_bytes() for n in ("hf", "averaged")
    ]
    assert tensors[0] != tensors[1]
    (here / "gone.py").rename(here / "mine.py")
    # In a process of its own: the fixture's mesh is that of this one.
    plan = [sys.executable, "-m", "electra_jax", "plan", "--config", "mine_recipe.py"]
    alone = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(root)}
    planned = subprocess.run(
        [*plan, "--topology", "cpu", "--json", *SMALL], capture_output=True, text=True, env=alone
    )
    assert json.loads(planned.stdout)["run"]["tokens_per_s"] > 0, planned.stderr
    assert '"step_s"' in run(
        "bench", "--config", "mine_recipe.py", "--seq-len", 32, "--rounds", 1, "--json", *SMALL
    )
    assert "share of the tokens that are exchanged" in run(
        "pretrain", "--config", "mine_recipe.py", "--list"
    )
    labelled(here / "train.tsv", 16)
    labelled(here / "dev.tsv", 8)
    tune = ("finetune", "--config", "finetune:classify", "--train", "train.tsv", "--dev", "dev.tsv")
    tune += ("--text", "text", "--label", "label", "--config.train.epochs=1")
    for init in ("run", "hf/encoder"):
        run(*tune, "--init", init, "--workdir", f"tuned-{init[:2]}")


def test_a_changed_file_is_said(here, prepared_folder):
    """Catches a run that goes on with another objective than it was begun with, without a word."""
    overrides = [f"data.path={prepared_folder}", "objective.name=mine.py", "objective.share=0.2"]
    config, workdir = load_config("tiny"), here / "run"
    begun = starts.open_run(config, workdir, overrides)
    starts.begin(begun)
    assert begun.config["objective"]["name"] == "mine.py"
    (here / "mine.py").write_text((here / "mine.py").read_text().replace("0.15", "0.25"))
    with pytest.raises(
        UserError, match=r"mine\.py has changed since.*--allow-change objective\.name"
    ):
        starts.open_run(config, workdir, overrides)
    resumed = starts.open_run(None, workdir)
    assert "goes on with its copy" in (resumed.note or "")
    assert resumed.run.objective["name"] == str(workdir / "objective.py")
    starts.begin(resumed)
    assert "0.15" in (workdir / "objective.py").read_text()
    taken = starts.open_run(None, workdir, allow_change=["objective.name"])
    assert [change.field for change in taken.changes] == ["objective.name"]
    starts.begin(taken)
    assert "0.25" in (workdir / "objective.py").read_text()
    assert starts.open_run(None, workdir).note is None


def test_an_objective_beside_its_recipe(here, capsys, monkeypatch):
    """Catches a recipe that works in its own folder alone."""
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["pretrain", "--config", "../mine_recipe.py", "--list"]) == 0
    assert "objective.share" in capsys.readouterr().out


def test_a_bad_file_ends_the_command_and_leaves_nothing(here, prepared_folder, capsys):
    """Catches a traceback, another exit code than 2, and a workdir that was begun."""
    (here / "mine.py").write_text((here / "mine.py").read_text().replace("def loss", "def lose"))
    words = ("pretrain", "--config", "tiny", "--workdir", "run", "--config.objective.name=mine.py")
    assert main([*words, f"--config.data.path={prepared_folder}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: objective file mine.py: loss: expected (context) -> ")
    assert said.count("\n") == 1 and not (here / "run").exists()
