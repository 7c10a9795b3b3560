"""What README and docs say: commands that parse and run, links that lead somewhere, tables that match the code."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.cli import flags
from electra_jax.spec import load_config

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "launch" / "README.md",
        *ROOT.glob("docs/**/*.md"),
    ]
)
# What a test cannot afford: each must occur in the README, or this list has fallen behind it.
SMALLER = {
    "--size 30522": "--size 1000",
    "--size 32000": "--size 1000",
    "--config configs/small.py": "--config configs/tiny.py --config.train.steps=4",
    # Compiled for a TPU in tests/plan/test_command.py, where its compiler is installed.
    "--config base --topology v5e:4x4 --topology v6e-8": "--config tiny --topology cpu --json",
}
# Sections of docs/metrics.md whose keys the page's own runs do not write.
OF_OTHER_OBJECTIVES = ("The full-size masked LM beside a generator", "Sentences", "The policy")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, without the indentation of a list they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.M | re.S)
    return [
        "\n".join(line.removeprefix(margin) for line in text.splitlines()) for margin, text in found
    ]


def commands(page: Path) -> list[str]:
    """Every `electra-jax ...` line that a page tells its reader to type."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line[line.index("electra-jax") :] for line in lines if "electra-jax " in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    """Catches a flag or command that was renamed in the code and not in what people read."""
    for command in commands(page):
        flags.parse(shlex.split(command)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Catches a page or heading that was moved away from under a link."""
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)
    for target in targets:
        if target.startswith(("https://", "http://")):
            continue
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """Catches a page that sends its reader to a file that was renamed."""
    named = re.findall(r"\b(?:electra_jax|configs|tools|tests)/[\w/]+\.py\b", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_table_of_recipes_is_that_of_the_configs():
    """Catches a recipe that was changed and a table that was not."""
    rows = re.findall(
        r"^\| `(small|base|large)` \| (.+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == ["small", "base", "large"]
    for name, cells in rows:
        config = load_config(name, [])
        model, train = config.model, config.train
        layers, width, embedding, generator, _, batch, steps, _ = cells.split(" | ")
        assert (int(layers), int(width), int(embedding), int(batch)) == (
            model.layers,
            model.width,
            model.embedding,
            train.batch,
        )
        assert int(generator) == round(model.generator_size * model.width)
        scale = {"k": 1_000, "M": 1_000_000}[steps[-1]]
        assert int(steps[:-1]) * scale == train.steps


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> Path:
    """A folder in which the README's commands were typed one after another, on small corpora."""
    from pydoc_data import topics

    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "configs", folder / "configs")
    text = "\n\n".join(topics.topics.values())
    for name in ("corpus", "more"):
        (folder / name).mkdir()
        (folder / name / "text.txt.gz").write_bytes(gzip.compress(text[:300_000].encode()))
    sst2 = "sentence\tlabel\n" + "".join(
        f"a {w} film\t{i % 2}\n" for i, w in enumerate(["bad", "good"] * 20)
    )
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for name in ("glue/SST-2/train.tsv", "glue/SST-2/dev.tsv", "my.tsv", "my_dev.tsv", "new.tsv"):
        (folder / name).write_text(sst2)
    lines = [line for line in commands(ROOT / "README.md") if "quickstart" not in line]
    for old, new in SMALLER.items():
        assert any(old in line for line in lines), f"README.md no longer shows {old!r}"
        lines = [line.replace(old, new) for line in lines]
    for line in lines:
        run(line.replace("electra-jax", "python -m electra_jax", 1), folder)
    return folder


def run(line: str, folder: Path) -> None:
    """Types a line that begins with `python` in a folder, with the Python of this test."""
    command = f'python() {{ "{sys.executable}" "$@"; }}; {line}'
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_commands_run_in_the_order_of_the_page(typed):
    """Catches a guide that cannot be followed to its end."""
    for model in ("discriminator", "generator"):
        assert {"config.json", "model.safetensors", "README.md"} <= {
            path.name for path in (typed / "hf" / model).iterdir()
        }
    assert (typed / "run2" / "metrics.jsonl").exists()
    assert len((typed / "predictions.tsv").read_text().splitlines()) == 41
    assert (typed / "hf-sst2" / "model.safetensors").exists()
    assert (typed / "ft-mine" / "results.json").exists()


@pytest.mark.slow
def test_a_run_becomes_a_page_of_results(typed):
    """Catches tools that no longer read what a run writes."""
    (script,) = blocks(ROOT / "docs" / "results" / "README.md", "bash")
    for line in script.splitlines():
        run(line.replace("tools/", f"{ROOT}/tools/"), typed)
    found = json.loads((typed / "baselines.json").read_text())
    last = json.loads((typed / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    replaced = found["detector"]["generator_replacements"]
    assert last["split"] == "valid" and last["step"] == replaced["step"]
    # The same rows, masks and samples as the run's own evaluation.
    assert replaced["discriminator_auc"] == pytest.approx(last["disc_auc"], abs=1e-6)
    assert replaced["replaced_fraction"] == pytest.approx(last["replaced_fraction"], abs=1e-6)
    assert (typed / "curve.png").exists() and "bigram baseline" in (typed / "table.md").read_text()


@pytest.mark.slow
def test_every_metric_is_defined(typed):
    """Catches a key of metrics.jsonl that docs/metrics.md does not know, or one that is no longer written."""
    lines = map(json.loads, (typed / "run" / "metrics.jsonl").read_text().splitlines())
    written = {key for line in lines for key in line} - {"step", "split"}
    page = (ROOT / "docs" / "metrics.md").read_text()
    defined: dict[bool, set[str]] = {True: set(), False: set()}
    for section in page.split("\n## "):
        keys = re.findall(r"^\| `(\w+)` \|", section, re.M)
        defined[section.splitlines()[0] in OF_OTHER_OBJECTIVES].update(keys)
    assert defined[False] == written
    source = "".join(p.read_text() for p in (ROOT / "electra_jax" / "objective").glob("*.py"))
    assert {key for key in defined[True] if f'"{key}"' not in source} == set()


@pytest.mark.slow
@pytest.mark.torch
def test_the_python_of_the_page_runs(typed):
    """Catches an exported folder that the README's own lines do not load."""
    (script,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run([sys.executable, "-c", script], cwd=typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tensor([[" in done.stdout
