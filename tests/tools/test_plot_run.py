"""tools/plot_run.py on made-up runs: the picture, the table, and files that are still being written."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "plot_run.py"
BASELINES = {
    "masked_lm": {
        "unigram": {"mlm_loss_copying": 5.5, "mlm_accuracy_copying": 0.2},
        "bigram": {"mlm_loss_copying": 4.5, "mlm_accuracy_copying": 0.3},
    },
    "detector": {"generator_replacements": {"unigram_auc": 0.55, "bigram_auc": 0.6}},
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("plot_run", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workdir(tmp_path):
    """A run of 4 evaluations, 8 rows of 16 tokens a step, whose last line is cut short."""
    folder = tmp_path / "some-run"
    folder.mkdir()
    record = {"config": {"train": {"batch": 8}}, "data": {"seq_len": 16}}
    (folder / "config.json").write_text(json.dumps(record))
    lines = []
    for step in (100, 200, 300, 400):
        lines.append({"step": step, "split": "train", "tokens_per_s": 1000.0 * step})
        held_out = {"mlm_loss": 600 / step, "disc_auc": None, "disc_recall": step / 1000}
        lines.append({"step": step, "split": "valid", **held_out})
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 500, "spl'
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_table_and_picture(tool, workdir, tmp_path, capsys):
    """Catches tokens counted wrongly, training lines taken for held-out ones, and lost baselines."""
    (tmp_path / "b.json").write_text(json.dumps(BASELINES))
    output, table = tmp_path / "curve.png", tmp_path / "table.md"
    arguments = [workdir, "--baselines", tmp_path / "b.json", "--output", output, "--table", table]
    assert tool.main([str(x) for x in (*arguments, "--rows", 2)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    text = table.read_text()
    assert text == capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    assert rows[0][:4] == ["some-run", "100", "0.01", "6.0000"]  # 100 steps x 128 tokens
    assert rows[1][:4] == ["some-run", "400", "0.05", "1.5000"]
    assert rows[2][0] == "unigram baseline" and "5.5000" in rows[2] and "0.5500" in rows[2]
    assert rows[3][0] == "bigram baseline" and "0.6000" in rows[3]
    assert len(rows) == 4 and "some-run 300,000" in text


def test_a_broken_line_in_the_middle_is_named(tool, workdir, capsys):
    """Catches data silently left out of a published curve."""
    file = workdir / "metrics.jsonl"
    file.write_text(file.read_text().replace('"step": 200', '"step" 200', 1))
    assert tool.main([str(workdir)]) == 2
    assert "metrics.jsonl:3: not a JSON object" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tool, tmp_path, capsys):
    """Catches a traceback where a sentence would do."""
    assert tool.main([str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
