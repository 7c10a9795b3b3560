"""Runs that begin with the masked LM of another workdir."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.convert import hf
from electra_jax.learn import checkpoint
from electra_jax.learn.arrays import flatten
from electra_jax.model import sharing
from electra_jax.pretrain import evaluate, loop
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError

pytestmark = pytest.mark.usefixtures("cheap")
SHORT = ("train.steps=2", "train.eval_every=2", "train.checkpoint_every=1", "optim.warmup=1")
SAME = ("model.heads=1", "model.ffn=64", "model.generator_size=1.0", "model.tying=gdes")


def params(folder: Path, step: int | None = None) -> dict[str, np.ndarray]:
    return flatten(checkpoint.read_params(folder, step)[1])


@pytest.fixture(scope="module")
def generator(config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a masked LM whose dimensions are those of a generator as large as the discriminator."""
    folder = tmp_path_factory.mktemp("stage") / "mlm"
    loop.pretrain(config(*SHORT, *SAME, "objective.name=mlm"), folder)
    return folder


def of(name: str, generator: Path, *more: str) -> tuple[str, ...]:
    steps = ("objective.temperature_first=2.0", "objective.temperature_steps=2")
    own = (f"objective.name={name}", f"objective.generator_run={generator}", *steps)
    return (*SHORT, *SAME, *own, *more)


def written(config: Callable[..., Any], *overrides: str) -> Any:
    """A config with options that the recipe of the tests leaves out."""
    from ml_collections import ConfigDict

    whole = config(*(o for o in overrides if not o.startswith("objective."))).to_dict()
    for key, value in (o.split("=", 1) for o in overrides if o.startswith("objective.")):
        name = key.removeprefix("objective.")
        number = float if name == "temperature_first" else int if name.endswith("_steps") else str
        whole["objective"][name] = number(value)
    return ConfigDict(whole)


def test_the_second_stage(generator: Path, config: Callable[..., Any], tmp_path: Path):
    """Catches a generator that moves, a discriminator with other weights, a resume that reads the generator again."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    loop.pretrain(written(config, *of("two_stage", generator)), whole)
    loop.pretrain(written(config, *of("two_stage", generator, "train.stop_at=1")), stopped)
    moved = generator.rename(generator.parent / "away")
    try:
        loop.pretrain(None, stopped, ["train.stop_at=0"])
    finally:
        moved.rename(generator)
    one, other, model = params(whole), params(stopped), params(generator)
    assert [path for path in one if one[path].tobytes() != other[path].tobytes()] == []
    for path, x in model.items():
        first, _, rest = path.partition("/")
        mine = {"embeddings": sharing.TABLES, "encoder": "generator", "head": "generator_head"}[
            first
        ]
        assert np.array_equal(x, one[f"{mine}/{rest}"]), path
        if first == "encoder":  # two steps of Adam away, each of 1e-3 at most
            assert 0 < np.abs(one[f"discriminator/{rest}"] - x).max() < 5e-3, path
    assert 0 < np.abs(one["embeddings/word"]).max() < 5e-3
    assert evaluate.evaluate_workdir(whole)["temperature"] == 1
    assert hf.export(whole, tmp_path / "hf") == ["discriminator", "generator"]
    hf.import_(tmp_path / "hf" / "discriminator", tmp_path / "hf" / "generator", tmp_path / "again")
    start = starts.open_run(
        written(config, *of("frozen", tmp_path / "again")), tmp_path / "third"
    )  # an import is a place for a generator, too
    assert not start.resumed


def test_beside_a_sentence_objective(generator: Path, config: Callable[..., Any], tmp_path: Path):
    """Catches an objective around this one that hides where it begins: the generator would be noise."""
    more = ("objective.sentence=order", "train.stop_at=1")
    loop.pretrain(written(config, *of("frozen", generator, *more)), tmp_path / "run")
    mine, theirs = params(tmp_path / "run"), params(generator)
    assert np.array_equal(mine["generator/layer_0/up/kernel"], theirs["encoder/layer_0/up/kernel"])
    assert "sentence_head/out/kernel" in mine


def test_what_is_no_generator(
    generator: Path, config: Callable[..., Any], prepared: Any, tmp_path: Path
):
    """Catches a folder that is no workdir, one without a masked LM, another architecture: found after compiling."""

    def refused(expected: str, place: Path, *more: str) -> None:
        with pytest.raises(UserError, match=expected):
            starts.open_run(written(config, *of("frozen", place, *more)), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("is no workdir with a checkpoint or an import; an exported folder", tmp_path)
    refused(
        r"model.generator_size, .*: width 8 here, 16 there", generator, "model.generator_size=0.5"
    )


def test_another_vocabulary(generator: Path, config: Callable[..., Any], tmp_path: Path):
    """Catches a generator whose ids are other words."""
    tokenizer = generator / "tokenizer" / "tokenizer.json"
    before = tokenizer.read_text()
    found = json.loads(before)
    vocab = found["model"]["vocab"]
    one, other = [word for word in vocab if word.isalpha()][:2]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    tokenizer.write_text(json.dumps(found))
    try:
        with pytest.raises(UserError, match="has another vocabulary than .* prepare the data with"):
            starts.open_run(written(config, *of("frozen", generator)), tmp_path / "run")
    finally:
        tokenizer.write_text(before)
