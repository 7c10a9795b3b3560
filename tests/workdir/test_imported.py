"""Imported workdirs: what is read back, what is refused, what conflicts with a config."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import files
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.objective.electra import numbers
from electra_jax.spec import UserError, load_config
from electra_jax.workdir import imported

DIMS = Dimensions(ModelSpec(**load_config("tiny").model.to_dict()), 300)
SOURCE = {"folders": [{"name": "somewhere", "sha256": {}}]}


def abstract(dims: Dimensions) -> dict:
    return jax.eval_shape(Electra(dims).init, jax.random.key(0))["params"]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A workdir with a random import."""
    rng = np.random.default_rng(0)
    shapes = arrays.flatten(abstract(DIMS))
    params = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in shapes.items()}
    imported.write(tmp_path, DIMS, "electra", params, SOURCE)
    return tmp_path


def test_it_is_read_back_as_the_tree_of_the_model(workdir: Path, tmp_path: Path) -> None:
    """A path lost between import and training, or dimensions that lose a field."""
    found = imported.read(workdir)
    assert found is not None and found.dims == DIMS and found.objective == "electra"
    tree = imported.as_tree(found, abstract(DIMS))
    assert jax.tree.structure(tree) == jax.tree.structure(abstract(DIMS))
    assert imported.read(tmp_path / "elsewhere") is None


def test_a_tree_of_another_model_is_listed(workdir: Path) -> None:
    """Imported weights taken for a model they do not fit."""
    found = imported.read(workdir)
    assert found is not None
    other = Dimensions(replace(DIMS.spec, tying="none", ffn=128), 300)
    with pytest.raises(UserError) as error:
        imported.as_tree(found, abstract(other))
    for path in ("generator_embeddings/word", "discriminator/layer_1/up/kernel"):
        assert path in str(error.value)


def test_dimensions_in_conflict_are_listed() -> None:
    """Only the first conflict named, or equal generators refused for the digits of their ratio."""
    near = replace(DIMS.spec, generator_size=0.5001, dropout=0.3, dtype="bfloat16", remat="layer")
    assert imported.conflicts(DIMS, Dimensions(near, 300), numbers) == []
    far = replace(DIMS.spec, layers=3, heads=1, tying="none", generator_size=0.25)
    found = "; ".join(imported.conflicts(DIMS, Dimensions(far, 301), numbers))
    for said in (
        "model.layers is 3, imported 2",
        "model.heads is 1, imported 2",
        "model.tying is 'none', imported 'embeddings'",
        "generator width (model.generator_size) is 16, imported 32",
        "vocabulary size (of the data) is 301, imported 300",
    ):
        assert said in found
    assert len(imported.conflicts(DIMS, Dimensions(far, 300))) == 2


def spoil_parameters(workdir: Path) -> None:
    path = workdir / imported.PARAMS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_parameters, "has changed since it was imported"),
        (lambda w: (w / imported.PARAMS).unlink(), "is missing"),
        (lambda w: (w / imported.RECORD).write_text("{}"), "is damaged"),
        (lambda w: (w / imported.RECORD).write_text("["), "is not JSON"),
        (lambda w: files.write_json(w / imported.RECORD, {"schema": 99}), "has schema 99"),
    ],
)
def test_a_damaged_import_is_refused(
    workdir: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """Training from weights that are not those that were imported."""
    spoil(workdir)
    with pytest.raises(UserError, match=message):
        imported.read(workdir)
