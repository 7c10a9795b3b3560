"""Folders and workdirs that were changed by hand: refused in one line, before anything large is made of them."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_jax.convert import folder, hf, names
from electra_jax.convert.entries import Shape
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective.electra import exports
from electra_jax.objective.export import DETECTION
from electra_jax.spec import UserError, load_config
from electra_jax.text.special import SpecialIds

SPECIAL = SpecialIds(0, 1, 2, 3, 4)

SHAPE = Shape(vocab=9, embedding=4, width=8, heads=2, ffn=32, layers=1, positions=12, types=2)
DIMS = Dimensions(ModelSpec(**load_config("tiny").model.to_dict()), 100)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A discriminator of random tensors with nine words."""
    draw = np.random.default_rng(0)
    tensors = {
        entry.theirs: draw.standard_normal(entry.shape, np.float32)
        for entry in names.table(exports(DIMS)[0], SHAPE)
    }
    path = tmp_path / "hf"
    path.mkdir()
    folder.write(path, SHAPE, folder.Options(), DETECTION, SPECIAL, tensors)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return path


def refused(path: Path, target: Path) -> str:
    """The error of an import; nothing is left, and nothing large was made."""
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        hf.import_(path, None, target / "run")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6 and not (target / "run").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers is 1000000, expected .* 1,000"),
        (
            {"num_hidden_layers": 900},
            "14384 tensors do not fit .*(\n  missing .*){60}\n  and 14,324",
        ),
        ({"vocab_size": 2**60}, "vocab_size is 1152921504606846976, expected a positive integer"),
        ({"vocab_size": 2**24}, "word_embeddings.weight has shape .9, 4., expected .16777216, 4."),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0"),
        ({"num_attention_heads": 10**200}, "num_attention_heads is a number of more than thirty"),
        ({"type_vocab_size": -1}, "type_vocab_size is -1"),
        ({"max_position_embeddings": [12]}, "max_position_embeddings is a list of 1"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1'"),
        ({"initializer_range": float("nan")}, "initializer_range is nan"),
        ({"architectures": "ElectraForPreTraining"}, "architectures is 'Electra.*expected list"),
        ({"architectures": [1]}, r"architectures\[0\] is 1, expected str"),
        ({"electra_jax": {"tying": ["none"]}}, "tying is a list of 1, expected str"),
    ],
)
def test_fields_of_a_config(made: Path, tmp_path: Path, changes: dict[str, Any], message: str):
    """Catches a config that is believed: memory for a million layers, a traceback for a text where a number belongs."""
    import re

    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | changes))
    said = refused(made, tmp_path)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../secret.safetensors"}}, "weight_map.'a'. is '../secret"),
        ({"weight_map": {"a": "/etc/passwd"}}, "weight_map.'a'. is '/etc/passwd'"),
        ({"weight_map": {"a": 3}}, "weight_map.'a'. is 3, expected the name of a file inside"),
        ({"weight_map": ["a"]}, "weight_map is a list of 1"),
        ({}, "weight_map is missing"),
        ({"weight_map": {"a": "gone.safetensors"}}, "lacks the weight files gone.safetensors"),
    ],
)
def test_an_index_stays_in_its_folder(made: Path, tmp_path: Path, index: Any, message: str):
    """Catches weights read from anywhere on the disk because an index says so, and tracebacks for others."""
    import re

    (made / "model.safetensors").rename(tmp_path / "secret.safetensors")
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused(made, tmp_path)
    assert re.search(message, said), said


def test_a_float8_tensor_is_named(made: Path, tmp_path: Path):
    """Catches AttributeError for the floats of 8 bits that quantised models hold."""
    header = {"electra.x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (made / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert "tensor electra.x is of dtype F8_E4M3" in refused(made, tmp_path)


def test_integers_are_no_weights(made: Path, tmp_path: Path):
    """Catches a model quantised to 8 bits that is imported as if its integers were the weights."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(made / "model.safetensors")
    table = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    save_file(tensors | {table: tensors[table].astype(np.int8)}, made / "model.safetensors")
    assert f"{table} holds int8 instead of floats" in refused(made, tmp_path)


def test_weights_have_the_umasks_mode(made: Path):
    """Catches model.safetensors that only its maker can read: the library writes it as a temporary file."""
    (made / "plain").write_text("")
    mode = (made / "plain").stat().st_mode
    assert {path.stat().st_mode for path in made.iterdir()} == {mode}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_neither_written_nor_read(tmp_path, value):
    """Catches a model folder that loads everywhere and computes nothing: the tensor is named."""
    tensors = {"good": np.ones(3, np.float32), "bad": np.array([1, value], np.float32)}
    with pytest.raises(
        UserError, match=r"the model holds NaN or infinity, in bad \(1 of 2\); export"
    ):
        folder.write_tensors(tmp_path / "model.safetensors", tensors, {})
    assert list(tmp_path.iterdir()) == []
