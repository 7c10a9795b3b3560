"""Model folders that must be refused, each with an error that says what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ElectraForPreTraining

from electra_jax.convert import folder, hf
from electra_jax.objective.export import DETECTION, MASKED_LM
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.torch


def change_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def to_pickle(path: Path) -> None:
    model = ElectraForPreTraining.from_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', expected 'electra'"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', expected 'gelu'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06, expected 1e-12"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True, expected False"),
        ({"architectures": ["ElectraForMaskedLM"]}, "expected 'ElectraForPreTraining'"),
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"hidden_size": "32"}, "hidden_size is '32', expected a positive integer"),
        (
            {"hidden_dropout_prob": 1.5},
            r"hidden_dropout_prob is 1.5, expected a number in \[0, 1\)",
        ),
    ],
)
def test_what_we_do_not_compute_is_refused(
    tmp_path: Path, exported: Path, changes: dict[str, Any], message: str
) -> None:
    """A model imported under settings that ours does not have, and silently computed otherwise."""
    change_config(exported / "discriminator", **changes)
    with pytest.raises(UserError, match=message):
        hf.import_(exported / "discriminator", exported / "generator", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_size": 24}, "embedding_size is 24 .* and 16"),
        ({"intermediate_size": 48}, "intermediate_size is 48, expected 64"),
        ({"vocab_size": 90}, "vocab_size is 90, expected"),
        ({"max_position_embeddings": 32}, "max_position_embeddings is 32, expected 40"),
        ({"electra_jax": {"tying": "some"}}, "unknown value .*tying.*'some'"),
        ({"electra_jax": "embeddings"}, "electra_jax is 'embeddings', expected a JSON object"),
    ],
)
def test_a_generator_that_does_not_go_with_it_is_refused(
    tmp_path: Path, exported: Path, changes: dict[str, Any], message: str
) -> None:
    """Two models that are no pair, joined until something breaks far away."""
    change_config(exported / "generator", **changes)
    with pytest.raises(UserError, match=message):
        hf.import_(exported / "discriminator", exported / "generator", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_pickle_comes_in_as_safetensors_do(exported: Path) -> None:
    """Catches another model than transformers' own loading of the same pickle."""
    path = exported / "discriminator"
    expected = dict(folder.read(path, DETECTION).tensors)
    to_pickle(path)
    found = folder.read(path, DETECTION).tensors
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def test_missing_and_extra_tensors_are_listed(tmp_path: Path, exported: Path) -> None:
    """A model with fewer layers than its config says, filled up in silence."""
    change_config(exported / "discriminator", num_hidden_layers=3)
    change_config(exported / "generator", num_hidden_layers=3)
    with pytest.raises(UserError) as error:
        hf.import_(exported / "discriminator", exported / "generator", tmp_path / "again")
    assert "16 tensors" in str(error.value)
    assert "missing electra.encoder.layer.2.attention.self.query.weight [32, 32]" in str(
        error.value
    )


def test_an_untied_output_table_is_refused(tmp_path: Path, exported: Path) -> None:
    """A masked LM whose output table is its own, imported as if it were the word table."""
    from safetensors.torch import load_file, save_file

    file = exported / "generator" / "model.safetensors"
    tensors = load_file(file)
    shape = tensors["electra.embeddings.word_embeddings.weight"].shape
    save_file(tensors | {"generator_lm_head.weight": torch.ones(shape)}, file)
    with pytest.raises(UserError, match=r"generator_lm_head\.weight differs"):
        hf.import_(exported / "discriminator", exported / "generator", tmp_path / "again")


def test_damaged_and_missing_files(tmp_path: Path, exported: Path) -> None:
    """A stack trace for a download cut short, or for the parent of the right folder."""
    path = exported / "discriminator"
    with pytest.raises(UserError, match="does not exist"):
        folder.read(tmp_path / "nowhere", DETECTION)
    with pytest.raises(UserError, match=r"no config\.json.*discriminator, generator"):
        folder.read(exported, DETECTION)
    with pytest.raises(UserError, match=r"architectures is \['ElectraForPreTraining'\]"):
        folder.read(path, MASKED_LM)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        folder.read(path, DETECTION)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no weights: no model\.safetensors"):
        folder.read(path, DETECTION)
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        folder.read(path, DETECTION)


def test_the_tokenizer_must_fit(
    tmp_path: Path, exported: Path, vocabulary: Tokenizer, small_vocabulary: Tokenizer
) -> None:
    """A tokenizer whose ids run past the table, a pair with two of them, or none at all."""
    vocabulary.save(exported / "generator")
    folders = exported / "discriminator", exported / "generator"
    with pytest.raises(UserError, match="different tokenizers"):
        hf.import_(*folders, tmp_path / "again")
    vocabulary.save(exported / "discriminator")
    with pytest.raises(
        UserError, match=f"30522 tokens, more than the {small_vocabulary.size} rows"
    ):
        hf.import_(*folders, tmp_path / "again")
    for path in (exported / "discriminator").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(UserError, match="is no tokenizer"):
        hf.import_(*folders, tmp_path / "again")
