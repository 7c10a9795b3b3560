"""Where encoders come from: every Hugging Face class, and what does not fit said tensor by tensor."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.convert import folder, names
from electra_jax.convert.entries import Shape
from electra_jax.finetune import start
from electra_jax.finetune.options import ModelOptions
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, MaskedLM
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.text.special import SpecialIds
from electra_jax.workdir import imported

SPECIAL = SpecialIds(0, 1, 2, 3, 4)

SPEC = ModelOptions(
    layers=1,
    width=8,
    heads=2,
    ffn=16,
    embedding=4,
    positions=12,
    types=2,
    init_std=0.02,
    dropout=0.2,
    attention_dropout=0.3,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
SHAPE = Shape(vocab=9, embedding=4, width=8, heads=2, ffn=16, layers=1, positions=12, types=2)
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")


def save(path: Path, architecture: str, without: str = "") -> dict[str, np.ndarray]:
    """A folder of this class with random tensors; `without` leaves one out."""
    draw = np.random.default_rng(0)
    table = names.encoder_only(SHAPE)
    tensors = {e.theirs: draw.standard_normal(e.shape).astype(np.float32) for e in table}
    written = dict(tensors)
    if architecture == "ElectraModel":
        written = {name.removeprefix("electra."): x for name, x in written.items()}
    else:
        written["classifier.weight"] = np.zeros((3, 8), np.float32)
    written.pop(without, None)
    folder.write(path, SHAPE, folder.Options(), architecture, SPECIAL, written)
    (path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return tensors


CLASSES = (
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraForCausalLM",
    "ElectraModel",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForQuestionAnswering",
    "ElectraForMultipleChoice",
)


@pytest.mark.parametrize("architecture", CLASSES)
def test_the_encoder_of_every_class_is_taken_and_its_head_left(architecture, tmp_path):
    """Catches a class whose tensors have another prefix, and a head that stands in the way."""
    tensors = save(tmp_path, architecture)
    found = start.read(str(tmp_path), SPEC)
    assert found.params is not None
    kernel = found.params["encoder/layer_0/up/kernel"]
    assert np.array_equal(kernel.T, tensors["electra.encoder.layer.0.intermediate.dense.weight"])
    assert found.dims.spec.dropout == 0.2 and found.dims.spec.attention_dropout == 0.3
    assert found.dims.vocab_size == found.tokenizer.size == 9
    assert sorted(found.tree or {}) == ["embeddings", "encoder"]


@pytest.mark.parametrize(
    "architecture",
    ["ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"],
)
def test_a_modernberts_encoder_is_taken(architecture, tmp_path):
    """Catches a head or a decoder that stands in the way, three matrices in one, and a dropout it does not have."""
    shape = dataclasses.replace(
        SHAPE, embedding=8, types=1, layers=2, local_attention=4, global_attn_every_n_layers=2
    )
    shape = dataclasses.replace(shape, family="modern", global_rope_theta=1e4, local_rope_theta=1e3)
    draw = np.random.default_rng(0)
    tensors = {}
    for entry in names.encoder_only(shape):
        tensors[entry.theirs] = draw.standard_normal(entry.their_shape).astype(np.float32)
    written = {**tensors, "head.dense.weight": np.zeros((8, 8), np.float32)}
    if architecture == "ModernBertModel":
        written = {name.removeprefix("model."): x for name, x in tensors.items()}
    folder.write(tmp_path, shape, folder.Options(), architecture, SPECIAL, written)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    found = start.read(str(tmp_path), SPEC)
    assert found.params is not None
    value = found.params["encoder/layer_1/value/kernel"]
    assert np.array_equal(value.T, tensors["model.layers.1.attn.Wqkv.weight"][16:])
    spec = found.dims.spec
    assert (spec.dropout, spec.attention_dropout, spec.local_attention) == (0.0, 0.3, 4)
    assert found.dims.discriminator.stack[1].rope_theta == 1e3


@pytest.mark.parametrize(
    ("objective", "module", "encoder"),
    [("electra", Electra, "discriminator"), ("mlm", MaskedLM, "encoder")],
)
def test_a_pretraining_workdir_gives_its_encoder(objective, module, encoder, tmp_path):
    """Catches the generator in place of the discriminator, and a masked LM that is not taken at all."""
    dims = Dimensions(dataclasses.replace(SPEC.random(), tying="embeddings"), len(VOCAB))
    shapes = jax.eval_shape(module(dims).init, jax.random.key(0))["params"]
    draw = np.random.default_rng(0)
    params = {
        name: draw.standard_normal(x.shape, np.float32)
        for name, x in arrays.flatten(shapes).items()
    }
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    tokenizer.load(tmp_path / "vocab.txt").save(tmp_path / "run" / "tokenizer")
    source = {"folders": [{"name": "hf", "sha256": {}}]}
    imported.write(tmp_path / "run", dims, objective, params, source)
    found = start.read(str(tmp_path / "run"), SPEC)
    assert found.params is not None and found.origin["objective"] == objective
    kernel = params[f"{encoder}/layer_0/up/kernel"]
    assert np.array_equal(found.params["encoder/layer_0/up/kernel"], kernel)
    assert np.array_equal(found.params["embeddings/word"], params["embeddings/word"])
    assert all(name.startswith(("embeddings/", "encoder/")) for name in found.params)


@pytest.mark.parametrize("architectures", [None, [], ["MyModelWithACrf"], ["ElectraModel"]])
@pytest.mark.parametrize("prefix", ["", "electra.", "model.electra."])
def test_the_encoder_is_found_by_its_tensors(architectures, prefix, tmp_path):
    """Catches an encoder refused for a class that nobody knows, for a missing class, or for a pooler left beside it."""
    tensors = save(tmp_path, "ElectraForPreTraining")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = architectures
    if architectures is None:
        del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    written = {prefix + name.removeprefix("electra."): x for name, x in tensors.items()}
    written[f"{prefix}pooler.dense.weight"] = written["crf.transitions"] = np.ones((2, 2), "f")
    folder.write_tensors(tmp_path / "model.safetensors", written, {"format": "pt"})
    found = start.read(str(tmp_path), SPEC)
    assert found.params is not None
    kernel = found.params["encoder/layer_0/up/kernel"]
    assert np.array_equal(kernel.T, tensors["electra.encoder.layer.0.intermediate.dense.weight"])


def test_no_encoder_and_two_are_refused(tmp_path):
    """Catches one of two encoders taken by chance, and a traceback where there is none."""
    tensors = save(tmp_path, "ElectraModel")
    two = {
        f"{side}.{name.removeprefix('electra.')}": x for name, x in tensors.items() for side in "ab"
    }
    folder.write_tensors(tmp_path / "model.safetensors", two, {})
    with pytest.raises(UserError, match=r"one encoder.*found a\.embeddings.*b\.embeddings"):
        start.read(str(tmp_path), SPEC)
    folder.write_tensors(tmp_path / "model.safetensors", {"x": np.ones(1, "f")}, {})
    with pytest.raises(UserError, match="one encoder.*found x"):
        start.read(str(tmp_path), SPEC)


def test_what_does_not_fit_is_named(tmp_path):
    """Catches a tensor that is missing or of another shape and is silently drawn at random."""
    missing = "electra.encoder.layer.0.output.dense.bias"
    save(tmp_path, "ElectraForPreTraining", without=missing)
    with pytest.raises(UserError, match=f"missing {missing}"):
        start.read(str(tmp_path), SPEC)
    save(tmp_path, "ElectraForPreTraining")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(UserError, match=r"intermediate.dense.weight has shape \[16, 8\]"):
        start.read(str(tmp_path), SPEC)


def test_a_vocabulary_that_is_not_the_encoders_is_refused(tmp_path):
    """Catches text encoded with other ids than those the encoder was trained on."""
    (tmp_path / "hf").mkdir()
    save(tmp_path / "hf", "ElectraModel")
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCAB[:5], "b", "a", "c", "d"]) + "\n")
    with pytest.raises(UserError, match="is not the tokenizer of"):
        start.read(str(tmp_path / "hf"), SPEC, str(tmp_path / "vocab.txt"))
    with pytest.raises(UserError, match="needs a vocabulary"):
        start.read("random", SPEC)
    found = start.read("random", SPEC, str(tmp_path / "vocab.txt"))
    assert found.params is None and found.dims.spec.width == 8
