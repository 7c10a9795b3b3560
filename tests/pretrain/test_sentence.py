"""Runs with a sentence objective: what they refuse, what they leave, and that order is learned where it shows."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.convert import hf
from electra_jax.data.prepare import build
from electra_jax.data.source import open_prepared
from electra_jax.learn import checkpoint
from electra_jax.learn.arrays import flatten
from electra_jax.pretrain import evaluate, loop, options
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError

SHORT = ("train.steps=4", "train.eval_every=4", "train.checkpoint_every=2", "optim.warmup=1")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def remade(prepared_folder: Path, tmp_path_factory):
    """Prepares the same corpus in another way."""

    def make(**changes: Any) -> Path:
        home, out = prepared_folder.parent, tmp_path_factory.mktemp("remade") / "data"
        build.prepare(
            [str(home / "corpus.txt")],
            home / "vocab.txt",
            32,
            out,
            valid_fraction=0.2,
            workers=1,
            **changes,
        )
        return out

    return make


@pytest.mark.parametrize(
    ("made", "overrides", "message"),
    [
        ({"segments": "full"}, [], "objective.sentence=order .* prepared with --segments full"),
        ({"segments": "single"}, [], "prepared with --segments single"),
        ({"pack": True}, [], "prepared with packed rows"),
        ({}, ["model.types=1"], "objective.sentence=order .* set --config.model.types=2"),
    ],
)
def test_what_has_no_two_segments_is_refused(
    config, prepared_folder, remade, tmp_path, made: dict, overrides: list[str], message: str
):
    """Catches a run that learns from nothing, or is refused only when it has compiled."""
    data = remade(**made) if made else prepared_folder
    start = starts.open_run(
        config(data=data), tmp_path / "run", ["objective.sentence=order", *overrides]
    )
    (phase,) = start.run.phases(open_prepared(data))
    with pytest.raises(UserError, match=message):
        options.check(start.run, phase, 1)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_goes_on_without(config, tmp_path):
    """Catches a record without the new keys that is taken for another config."""
    start = starts.open_run(config(), tmp_path)
    starts.begin(start)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    for key in ("sentence", "sentence_weight", "masking", "mask_prob_first"):
        del record["config"]["objective"][key]
    path.write_text(json.dumps(record))
    assert starts.open_run(config(), tmp_path).changes == ()
    with pytest.raises(UserError, match=r"objective.sentence: was '', now 'order'"):
        starts.open_run(None, tmp_path, ["objective.sentence=order"])


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    "own",
    [
        ("objective.sentence=order", "train.average=0.9", "train.accumulation=2"),
        ("objective.sentence=next", "objective.name=mlm", "objective.masking=spans"),
    ],
)
def test_a_run(config, tmp_path: Path, own: tuple[str, ...]):
    """Catches state that a checkpoint lacks, a metric that is not finite, a model that does not leave."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    loop.pretrain(config(*SHORT), whole, own)
    loop.pretrain(config(*SHORT), stopped, (*own, "train.stop_at=2"))
    loop.pretrain(None, stopped, ["train.stop_at=0"])
    one, other = (flatten(checkpoint.read_params(folder)[1]) for folder in (whole, stopped))
    assert "sentence_head/dense/kernel" in one
    assert [path for path in one if one[path].tobytes() != other[path].tobytes()] == []
    (held_out,) = (line for line in lines(whole) if line["split"] == "valid" and line["step"])
    assert all(math.isfinite(x) for x in held_out.values() if isinstance(x, float)), held_out
    assert 0 < held_out["sentence_accuracy"] < 1
    again = evaluate.evaluate_workdir(whole)
    assert again["sentence_loss"] == held_out["sentence_loss"]
    assert hf.export(whole, tmp_path / "hf")
    assert not any("sentence" in p.name for p in (tmp_path / "hf").rglob("*"))


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_what_shows_is_learned(config, prepared_folder, tmp_path: Path):
    """Catches labels that are not those of the rows: the first half of a document has other words than the second."""
    words = (prepared_folder.parent / "vocab.txt").read_text().split()[5:-1]
    draw = np.random.default_rng(0)
    documents = []
    for _ in range(400):
        halves = (words[:20], words[20:])
        documents.append("\n".join(" ".join(draw.choice(half, 13)) for half in halves))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(documents) + "\n")
    vocab = prepared_folder.parent / "vocab.txt"
    build.prepare([str(corpus)], vocab, 32, tmp_path / "data", valid_fraction=0.2, workers=1)
    own = (
        "objective.sentence=order",
        "objective.name=mlm",
        "train.steps=150",
        "train.batch=16",
        "train.eval_every=150",
        "train.checkpoint_every=150",
        "train.eval_batches=5",
        "optim.peak_lr=0.003",
        "optim.warmup=10",
        "model.dropout=0.0",
    )
    loop.pretrain(config(data=tmp_path / "data"), tmp_path / "run", own)
    (held_out,) = (
        line for line in lines(tmp_path / "run") if line["step"] == 150 and line["split"] == "valid"
    )
    assert held_out["sentence_accuracy"] > 0.95
