"""The border tables against transformers' own modules on one side and our initialised trees on the other."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_jax.convert import config as configs
from electra_jax.convert import electra_names, entries, folder, names, pair
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, MaskedLM
from electra_jax.model.layers import padded_vocab
from electra_jax.objective.export import MASKED_LM
from electra_jax.spec import UserError
from electra_jax.text.special import SpecialIds

SPECIAL = SpecialIds(0, 1, 2, 3, 4)

pytestmark = pytest.mark.torch
MODES = ("embeddings", "none", "all", "gdes")
SIZES = ("tiny", "small", "base", "large")
MakeDims = Callable[..., Dimensions]


def tables(dims: Dimensions) -> list[list[entries.Entry]]:
    return [pair.discriminator_table(dims), pair.generator_table(dims)]


def our_shapes(dims: Dimensions, module: type = Electra) -> dict[str, tuple[int, ...]]:
    tree = jax.eval_shape(module(dims).init, jax.random.key(0))["params"]
    return {name: x.shape for name, x in arrays.flatten(tree).items()}


def their_shapes(architecture: type, shape: entries.Shape) -> dict[str, tuple[int, ...]]:
    config = configs.of(shape, folder.Options(), architecture.__name__, SPECIAL)
    with torch.device("meta"):
        state = architecture(ElectraConfig(**config)).state_dict()
    return {name: tuple(x.shape) for name, x in state.items() if name != electra_names.TIED_TABLE}


@pytest.mark.parametrize("tying", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_every_parameter_has_a_row(make_dims: MakeDims, size: str, tying: str) -> None:
    """A tying mode or size in which a parameter of ours is not exported, or exported under two shapes."""
    dims = make_dims(size, tying, 30522)
    padded = padded_vocab(dims.vocab_size)
    rows = {entry.ours: entry.our_shape(padded) for table in tables(dims) for entry in table}
    assert rows == our_shapes(dims)


def test_every_parameter_of_plain_mlm_has_a_row(make_dims: MakeDims) -> None:
    """The MLM objective exported by the generator's paths, which its tree does not have."""
    dims = make_dims()
    (table,) = pair.tables(dims, MASKED_LM)
    rows = {entry.ours: entry.our_shape(padded_vocab(100)) for entry in table}
    assert rows == our_shapes(dims, MaskedLM)


@pytest.mark.parametrize("tying", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_of_transformers_has_a_row(make_dims: MakeDims, size: str, tying: str) -> None:
    """A name misspelt, forgotten or of the wrong shape: loaded as newly initialised, without an error."""
    dims = make_dims(size, tying, 30522)
    encoders = (dims.discriminator, dims.generator)
    classes = (ElectraForPreTraining, ElectraForMaskedLM)
    for table, encoder, architecture in zip(tables(dims), encoders, classes, strict=True):
        rows = {entry.theirs: entry.shape for entry in table}
        assert len(rows) == len(table)
        assert rows == their_shapes(architecture, pair.shape_of(dims, encoder))


@pytest.mark.parametrize("tying", MODES)
def test_there_and_back(make_dims: MakeDims, tying: str) -> None:
    """A transform that is not its own inverse, or padding rows that come back as something but zero."""
    dims, rng = make_dims("tiny", tying), np.random.default_rng(0)
    params = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in our_shapes(dims).items()
    }
    padded = padded_vocab(dims.vocab_size)
    theirs = names.export(params, tables(dims), padded, "here")
    back: dict[str, np.ndarray] = {}
    for tensors, table in zip(theirs, tables(dims), strict=True):
        back |= names.import_(tensors, table, padded, "there")
    assert back.keys() == params.keys()
    for name, value in params.items():
        if value.shape[0] == padded:
            assert not back[name][100:].any()
            value, back[name] = value[:100], back[name][:100]
        np.testing.assert_array_equal(back[name], value)


def test_all_that_does_not_fit_is_listed(make_dims: MakeDims) -> None:
    """A report that stops at the first wrong name, or that names only one side."""
    dims = make_dims()
    table = pair.discriminator_table(dims)
    tensors = {entry.theirs: np.zeros(entry.shape, np.float32) for entry in table}
    missing = "electra.encoder.layer.1.output.dense.bias"
    del tensors[missing], tensors["electra.embeddings.LayerNorm.weight"]
    tensors["electra.encoder.layer.2.output.dense.bias"] = np.zeros(3, np.float32)
    tensors["electra.embeddings.word_embeddings.weight"] = np.zeros((99, 16), np.float32)
    with pytest.raises(UserError) as error:
        names.import_(tensors, table, 128, "a folder")
    message = str(error.value)
    assert "a folder: 4 tensors" in message
    assert f"missing {missing} [32]" in message
    assert "missing electra.embeddings.LayerNorm.weight [16]" in message
    assert "unexpected electra.encoder.layer.2.output.dense.bias [3]" in message
    assert "word_embeddings.weight has shape [99, 16], expected [100, 16]" in message


def test_parameters_of_ours_that_do_not_fit_are_listed(make_dims: MakeDims) -> None:
    """An export that silently leaves out what no table names."""
    dims = make_dims()
    params = {name: np.zeros(shape, np.float32) for name, shape in our_shapes(dims).items()}
    params["discriminator/layer_0/query/scale"] = params.pop("discriminator/layer_0/query/bias")
    with pytest.raises(UserError, match="2 tensors") as error:
        names.export(params, tables(dims), 128, "a workdir")
    assert "missing discriminator/layer_0/query/bias [32]" in str(error.value)
    assert "unexpected discriminator/layer_0/query/scale [32]" in str(error.value)


def test_layers_are_listed_in_their_order() -> None:
    """Layer 10 before layer 9 in a long list of errors."""
    with pytest.raises(UserError) as error:
        names.check({}, {f"layer.{i}": (1,) for i in (10, 9, 2)}, "x")
    lines = str(error.value).splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["layer.2", "layer.9", "layer.10"]
