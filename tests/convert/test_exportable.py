"""Exports of a trained workdir: which checkpoint, which settings, which facts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from electra_jax import files
from electra_jax.convert import exportable, hf
from electra_jax.data.prepare import build
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import arrays, checkpoint
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.pretrain import loop
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError, load_config
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.workdir import imported

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def prepared(
    paragraphs: list[str], small_vocabulary: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """A few documents, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "corpus.txt").write_text("\n\n".join(paragraphs[:60]))
    small_vocabulary.save(folder / "tokenizer")
    build.prepare(
        [str(folder / "corpus.txt")], folder / "tokenizer", 32, folder / "data", workers=1
    )
    return open_prepared(folder / "data")


@pytest.fixture(scope="module")
def trees(
    prepared: Prepared, initial: Callable[..., dict[str, np.ndarray]]
) -> dict[int, dict[str, np.ndarray]]:
    """Step -> the parameters saved at it."""
    model = load_config("tiny").model.to_dict()
    dims = Dimensions(ModelSpec(**model), prepared.vocab_size)
    return {10: initial(dims, 1), 20: initial(dims, 2)}


@pytest.fixture(scope="module")
def finished(
    prepared: Prepared,
    trees: dict[int, dict[str, np.ndarray]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A workdir as `pretrain` leaves it, without the training."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = load_config("tiny", [f"data.path={prepared.path}", "model.dropout=0.2"])
    start = starts.open_run(config, folder)
    starts.begin(start)
    with checkpoint.Checkpoints(folder, keep_last=2) as checkpoints:
        for step, params in trees.items():
            state = jax.tree.map(jnp.asarray, {"params": arrays.nest(params)})
            checkpoints.save(step, state, {"data": starts.data_record(prepared)})
            checkpoints.wait()
    lines: list[dict[str, Any]] = [
        {"step": 10, "split": "valid", "mlm_loss": 5.5, "disc_auc": 0.6},
        {"step": 20, "split": "train", "mlm_loss": 4.25},
        {"step": 20, "split": "valid", "mlm_loss": 4.5, "disc_auc": 0.75, "mfu": None},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 20, "split": "valid", "mlm')
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workdir, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_the_newest_checkpoint_or_the_one_asked_for(
    run: Path, tmp_path: Path, trees: dict[int, dict[str, np.ndarray]]
) -> None:
    """The weights of one step under the metrics of another."""
    hf.export(run, tmp_path / "newest")
    hf.export(run, tmp_path / "older", step=10)
    for name, step, loss in (("newest", 20, "4.5"), ("older", 10, "5.5")):
        tensors = load_file(tmp_path / name / "discriminator" / "model.safetensors")
        ours = trees[step]["discriminator/layer_1/up/kernel"].T
        assert np.array_equal(tensors["electra.encoder.layer.1.intermediate.dense.weight"], ours)
        card = (tmp_path / name / "generator" / "README.md").read_text()
        assert f"| steps | {step} |" in card and f"| mlm_loss | {loss} |" in card
    with pytest.raises(UserError, match="30"):
        hf.export(run, tmp_path / "none", step=30)
    assert not (tmp_path / "none").exists()


def test_settings_and_facts_of_the_run(run: Path, tmp_path: Path, prepared: Prepared) -> None:
    """A config.json with default dropouts, or a card that forgets data, settings or versions."""
    hf.export(run, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "generator" / "config.json").read_text())
    assert config["hidden_dropout_prob"] == 0.2 and config["vocab_size"] == prepared.vocab_size
    card = (tmp_path / "hf" / "discriminator" / "README.md").read_text()
    rows = f"| train rows | {prepared.rows['train']:,} |"
    for said in (prepared.fingerprint, rows, "| optim.peak_lr | 0.001 |", "| jax | ", "--step 20"):
        assert said in card, said
    assert str(prepared.path) not in card  # whose machine it was is nobody's business


def test_the_card_does_without_the_data(run: Path, prepared: Prepared, tmp_path: Path) -> None:
    """An export that fails because the prepared folder was cleaned up meanwhile."""
    record = json.loads((run / "config.json").read_text())
    record["config"]["data"]["path"] = str(tmp_path / "gone")
    files.write_json(run / "config.json", record)
    facts = exportable.read(run).facts
    assert prepared.fingerprint in facts.data["fingerprint"]


def test_an_evaluation_of_the_step_is_preferred(run: Path) -> None:
    """Metrics of a small slice on the card although a full evaluation was made."""
    values = {"step": 20, "rows": 64, "data": "x", "fingerprint": "y", "mlm_loss": 4.0}
    files.write_json(run / "evaluate-20.json", values)
    assert exportable.held_out_metrics(run, 20) == {"mlm_loss": 4.0}


def test_the_uniform_generator_is_not_exported(run: Path, tmp_path: Path) -> None:
    """Untrained weights published as a generator."""
    record = json.loads((run / "config.json").read_text())
    record["config"]["objective"]["uniform_generator"] = True
    files.write_json(run / "config.json", record)
    assert hf.export(run, tmp_path / "hf") == ["discriminator"]
    assert [p.name for p in (tmp_path / "hf").iterdir()] == ["discriminator"]


def test_what_is_no_workdir(run: Path, tmp_path: Path) -> None:
    """A stack trace, or half an export, for a folder without a run or without checkpoints."""
    with pytest.raises(UserError, match="does not exist"):
        hf.export(tmp_path / "nowhere", tmp_path / "hf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a workdir"):
        hf.export(tmp_path / "empty", tmp_path / "hf")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint"):
        hf.export(run, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine").touch()
    with pytest.raises(UserError, match="already exists"):
        hf.export(run, tmp_path / "hf")


@pytest.mark.slow
def test_an_import_is_trained_on(run: Path, tmp_path: Path, prepared: Prepared) -> None:
    """Training that starts afresh instead of from the import, or an export that returns the import."""
    hf.export(run, tmp_path / "hf")
    again = tmp_path / "again"
    hf.import_(tmp_path / "hf" / "discriminator", tmp_path / "hf" / "generator", again)
    steps = [
        f"train.{name}=2" for name in ("steps", "eval_every", "checkpoint_every", "eval_batches")
    ]
    changes = [f"data.path={prepared.path}", "model.dropout=0.2", "optim.warmup=1", *steps]
    with pytest.raises(UserError, match=r"model\.width is 128, imported 64"):
        loop.pretrain(load_config("tiny", [*changes, "model.width=128"]), again)
    # The rate is 0 at step 0, so the second of two steps is the one that moves.
    loop.pretrain(load_config("tiny", changes), again)
    before, found = imported.read(again), exportable.read(again)
    assert before is not None and found.facts.step == 2
    name = "discriminator/layer_0/up/kernel"
    moved = np.abs(found.params[name] - before.params[name]).max()
    assert 0 < moved < 1e-2
    assert "imported weights: `discriminator`, `generator`" in found.facts.origin
    assert "mlm_loss" in found.facts.metrics
