"""Held-out evaluation: the same numbers whatever the batch, and what refuses."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from electra_jax.pretrain import program
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.evaluate import evaluate_workdir, held_out
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import UserError
from electra_jax.workdir.record import RECORD

COUNTED = ("mlm_accuracy", "sampled_accuracy", "disc_accuracy", "replaced_fraction", "disc_recall")


def evaluated(config, prepared, devices: int, batch: int, *counts: int) -> list[dict[str, float]]:
    """Metrics over so many batches, with the same random parameters."""
    run = run_spec(config(f"train.batch={batch}").to_dict())
    some = Mesh(np.array(jax.devices()[:devices]).reshape(devices, 1), ("data", "fsdp"))
    compiled = program.build(run, run.phases(prepared)[0], some)
    shapes = compiled.abstract_state["params"]
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda s: 0.3 * draw.normal(size=s.shape).astype(np.float32), shapes)
    params = compiled.place_params(params)
    source = prepared.source("valid")
    return [held_out(compiled, params, {}, source, batch, count) for count in counts]


def test_the_batch_changes_nothing(config, prepared):
    """Catches masks and samples numbered within the batch, a mean of means, and the empty rows that
    fill up batches counted in: four rows at a time on one device, then seven on two."""
    n = prepared.rows["valid"]
    assert n % 4 or n % 7
    four, some = evaluated(config, prepared, 1, 4, n, 1)
    (seven,) = evaluated(config, prepared, 2, 7, n)
    for name in COUNTED:
        assert four[name] == seven[name], name
    for name, value in four.items():
        assert value == pytest.approx(seven[name], rel=1e-5), name
    assert some["mlm_loss"] != four["mlm_loss"]  # only the first rows, when asked


def test_a_folder_that_cannot_be_evaluated(config, prepared, prepared_folder, tmp_path):
    """Catches evaluation of nothing, on rows of another vocabulary, or without held-out rows."""
    with pytest.raises(UserError, match="is not a workdir"):
        evaluate_workdir(tmp_path)
    starts.begin(starts.open_run(config(), tmp_path / "run"))
    path = tmp_path / "run" / RECORD
    record = json.loads(path.read_text())
    record["data"]["tokenizer_hash"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="prepared with another tokenizer than the run's"):
        evaluate_workdir(tmp_path / "run")
