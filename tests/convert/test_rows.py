"""Pairs whose word table has more rows than the tokenizer has tokens: imported, never drawn from, exported whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from electra_jax import remote
from electra_jax.convert import folder, hf, names, pair
from electra_jax.convert.entries import Shape
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective.electra import exports
from electra_jax.spec import UserError, load_config
from electra_jax.text.special import SpecialIds
from electra_jax.workdir import imported

SPECIAL = SpecialIds(0, 1, 2, 3, 4)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")
FULL = Shape(vocab=16, embedding=4, width=8, heads=2, ffn=32, layers=1, positions=12, types=2)
SMALL = Shape(vocab=16, embedding=4, width=4, heads=1, ffn=16, layers=1, positions=12, types=2)

DIMS = Dimensions(ModelSpec(**load_config("tiny").model.to_dict()), 100)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A pair of random tensors with nine words and sixteen rows, in hf/discriminator and hf/generator."""
    draw = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for model, shape in zip(exports(DIMS), (FULL, SMALL), strict=True):
        role, table = model.name, names.table(model, shape)
        own = {e.theirs: draw.standard_normal(e.shape, np.float32) for e in table}
        shared = {n: x for n, x in tensors.items() if n.startswith("electra.embeddings.")}
        tensors = own | shared
        path = tmp_path / "hf" / role
        path.mkdir(parents=True)
        folder.write(path, shape, folder.Options(), model.hf_class, SPECIAL, tensors)
        (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path / "hf"


def test_there_and_back(made: Path, tmp_path: Path):
    """Catches rows that are refused, cut off on the way, or counted as tokens that can be met and drawn."""
    hf.import_(made / "discriminator", made / "generator", tmp_path / "run")
    found = imported.read(tmp_path / "run")
    assert found is not None
    assert found.dims.vocab_size == 9 and found.dims.rows == 16
    hf.export(tmp_path / "run", tmp_path / "again")
    for role in ("discriminator", "generator"):
        config = json.loads((tmp_path / "again" / role / "config.json").read_text())
        assert config["vocab_size"] == 16
        one = folder.read_tensors(made / role / "model.safetensors")
        other = folder.read_tensors(tmp_path / "again" / role / "model.safetensors")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_from_it_with_any_recipe(made: Path, tmp_path: Path):
    """Catches an import that no recipe fits, since none knows of further rows."""
    from electra_jax.data.prepare import build
    from electra_jax.pretrain import start as starts
    from electra_jax.spec import load_config

    hf.import_(made / "discriminator", made / "generator", tmp_path / "run")
    (tmp_path / "c.txt").write_text("a b c d a b\n\n" * 40)
    build.prepare([str(tmp_path / "c.txt")], tmp_path / "run" / "tokenizer", 12, tmp_path / "data")
    changes = ["layers=1", "width=8", "ffn=32", "embedding=4", "positions=12"]
    config = load_config("tiny", [f"model.{change}" for change in changes])
    config.data.path = str(tmp_path / "data")
    start = starts.open_run(config, tmp_path / "run")
    dims = start.run.dimensions(start.data.vocab_size)
    assert (dims.vocab_size, dims.rows) == (9, 16)
    starts.begin(start)
    assert starts.open_run(config, tmp_path / "run").changes == ()


def test_fewer_rows_than_tokens():
    """Catches a table without a row for some of the words."""
    dims = pair.with_tokens(Dimensions(_spec(), 16), 9)
    assert dims.spec.vocab_rows == 16
    assert pair.with_tokens(Dimensions(_spec(), 9), 9).spec.vocab_rows == 0
    with pytest.raises(UserError, match="model.vocab_rows=16 is fewer than the 17 tokens"):
        Dimensions(dims.spec, 17)


def _spec():
    from electra_jax.pretrain.options import run_spec
    from electra_jax.spec import load_config

    return run_spec(load_config("tiny").to_dict()).model


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(made: Path, tmp_path: Path, bucket: str):
    """Catches an import from a bucket that is not read there, and one to a bucket that becomes a local folder."""
    remote.publish(made, f"{bucket}/hf")
    pair_ = f"{bucket}/hf/discriminator", f"{bucket}/hf/generator"
    hf.import_(*pair_, f"{bucket}/run")
    hf.import_(made / "discriminator", made / "generator", tmp_path / "run")
    here = tmp_path / "run"
    names = {p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()}
    assert remote.sizes(f"{bucket}/run").keys() == names
    hf.export(f"{bucket}/run", tmp_path / "again")
    one, other = (
        folder.read_tensors(path / "generator" / "model.safetensors")
        for path in (made, tmp_path / "again")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
