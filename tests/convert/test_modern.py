"""The border of the modern family: ModernBERT folders that leave and come in, in transformers' hands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForTokenClassification

from electra_jax.convert import exportable, hf
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, MaskedLM
from electra_jax.model.tokens import Tokens
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.workdir import imported

pytestmark = pytest.mark.torch
transformers.utils.logging.disable_progress_bar()
MODERN = {
    "family": "modern",
    "layers": 4,
    "width": 32,
    "heads": 2,
    "ffn": 48,
    "embedding": 32,
    "types": 1,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "generator_size": 1.0,
    "generator_layers": 0.5,
    "local_attention": 16,
}
LONG = pytest.param(8192, marks=pytest.mark.slow)


@pytest.fixture
def run(tmp_path: Path, make_dims: Callable, small_vocabulary: Tokenizer) -> Callable[..., Path]:
    """Changed fields -> a workdir `tmp_path/run` that holds random parameters, so large that every part matters."""

    def make(objective: str = "electra", **changes: Any) -> Path:
        dims = make_dims(vocab_size=small_vocabulary.size, **MODERN | changes)
        folder = tmp_path / "run"
        folder.mkdir()
        small_vocabulary.save(folder / "tokenizer")
        source = {"folders": [{"name": "nowhere", "sha256": {}}], "fresh_generator": False}
        module = Electra if objective == "electra" else MaskedLM
        imported.write(folder, dims, objective, random(dims, module), source)
        return folder

    return make


def random(dims: Dimensions, module: type = Electra) -> dict[str, np.ndarray]:
    """Flat random parameters; the padding of the vocabulary is zero, as ever.

    With matrices twice as large transformers' own float32 is 2.8e-5 from its float64 at length 1,024.
    """
    shapes = jax.eval_shape(module(dims).init, jax.random.key(0))["params"]
    draw = np.random.default_rng(0)
    flat = {}
    for name, x in arrays.flatten(shapes).items():
        value = draw.standard_normal(x.shape, np.float32) * np.float32(0.15 if x.ndim == 2 else 0.5)
        flat[name] = value + np.float32(name.endswith("scale"))
        if x.shape[0] == dims.padded_rows:
            flat[name][dims.vocab_size :] = 0
    return flat


def batch_of(vocab: int, length: int, documents: list[int]) -> dict[str, np.ndarray]:
    """One row with documents of these lengths, padding behind them."""
    docs, places = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    start = 0
    for number, size in enumerate(documents, 1):
        docs[0, start : start + size] = number
        places[0, start : start + size] = np.arange(size)
        start += size
    ids = np.random.default_rng(1).integers(5, vocab, (1, length)).astype(np.int32)
    return {"ids": ids * (docs > 0), "types": 0 * ids, "docs": docs, "positions": places}


def ours(folder: Path, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The logits of a workdir's models on a batch, by the name of the model's folder."""
    found = exportable.read(folder)
    tokens, params = Tokens.of(batch), arrays.nest(found.params)
    every = jnp.broadcast_to(jnp.arange(batch["ids"].shape[1]), batch["ids"].shape)
    module = Electra if found.objective == "electra" else MaskedLM

    def words(params: Any, tokens: Any, every: Any) -> Any:
        network = module(found.dims)
        hidden, table, bias = network.apply({"params": params}, tokens, every, method="generate")
        return (hidden @ table.T + bias)[..., : found.dims.vocab_size]

    def detect(params: Any, tokens: Any) -> Any:
        return Electra(found.dims).apply({"params": params}, tokens, method="discriminate")

    logits = {"model": jax.jit(words)(params, tokens, every)}
    if module is Electra:
        logits = {"generator": logits["model"], "discriminator": jax.jit(detect)(params, tokens)}
    return {name: np.asarray(x) for name, x in logits.items()}


def theirs(model: Any, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """transformers' logits of one row, whose padding is `mask`'s zeros."""
    with torch.no_grad():
        shown = torch.ones(ids.shape, dtype=torch.long) if mask is None else torch.tensor(mask)
        found = model.eval()(torch.tensor(ids).long(), attention_mask=shown.long()).logits.numpy()
    return found[..., 1] - found[..., 0] if found.shape[-1] == 2 else found


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    largest = float(np.abs(expected).max())
    assert np.abs(found - expected).max() < 1e-5 * max(1.0, largest)
    assert largest > 0.5  # of parameters that matter


def same_documents(model: Any, batch: dict[str, np.ndarray], found: np.ndarray) -> None:
    """Every document of a packed row is as if it were alone; a lone one is compared with its padding."""
    docs = batch["docs"][0]
    if docs.max() == 1:
        expected = theirs(model, batch["ids"], batch["docs"] > 0)
        assert_alike(found[:, docs > 0], expected[:, docs > 0])
        return
    for number in range(1, docs.max() + 1):
        assert_alike(found[:, docs == number], theirs(model, batch["ids"][:, docs == number]))


def lengths(length: int) -> list[list[int]]:
    """Documents of a row: with padding, and packed, the first longer than a window of 128."""
    return [[length - length // 8], [length // 2 + 3, length // 4, length // 8]]


@pytest.mark.parametrize("length", [128, 1024, LONG])
def test_what_leaves_says_the_same(tmp_path: Path, run: Callable, length: int) -> None:
    """A matrix in the wrong half, a window or base that is not said, a tensor made anew, a second class that counts."""
    window = 16 if length == 128 else 128
    folder = run(positions=length, local_attention=window)
    assert hf.export(folder, tmp_path / "hf") == ["discriminator", "generator"]
    kinds = {"discriminator": AutoModelForTokenClassification, "generator": AutoModelForMaskedLM}
    models = {}
    for name, auto in kinds.items():
        models[name], info = auto.from_pretrained(tmp_path / "hf" / name, output_loading_info=True)
        assert not any(info.values()), info
        _, info = AutoModel.from_pretrained(tmp_path / "hf" / name, output_loading_info=True)
        heads = ("head.", "classifier.", "decoder.")
        assert all(name.startswith(heads) for name in info.pop("unexpected_keys"))
        assert not any(info.values()), info
    vocab = models["generator"].config.vocab_size
    for documents in lengths(length):
        batch = batch_of(vocab, length, documents)
        for name, logits in ours(folder, batch).items():
            same_documents(models[name], batch, logits)


@pytest.mark.parametrize(
    ("spelling", "length"),
    [
        ("released", 128),
        ("saved", 1024),
        pytest.param("released", 8192, marks=pytest.mark.slow),
    ],
)
def test_what_comes_in_says_the_same(
    tmp_path: Path, small_vocabulary: Tokenizer, length: int, spelling: str
) -> None:
    """A folder in the spelling of released models or of transformers 5 whose layers are taken for others."""
    model = make_theirs(tmp_path / "theirs", small_vocabulary, length, spelling)
    hf.import_(None, tmp_path / "theirs", tmp_path / "run")
    dims = imported.read(tmp_path / "run").dims
    assert dims.discriminator.stack[1].window == (8 if length == 128 else 64)
    assert [layer.rope_theta for layer in dims.discriminator.stack] == [90_000, 7_000] * 2
    for documents in lengths(length):
        batch = batch_of(small_vocabulary.size, length, documents)
        same_documents(model, batch, ours(tmp_path / "run", batch)["model"])
    if length == 128:  # and back again, bit for bit
        hf.export(tmp_path / "run", tmp_path / "back")
        first = load_file(tmp_path / "theirs" / "model.safetensors")
        second = load_file(tmp_path / "back" / "model" / "model.safetensors")
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def make_theirs(path: Path, words: Tokenizer, length: int, spelling: str) -> Any:
    """A random masked LM of transformers, saved as it saves, with a released model's spelling of the config."""
    special = words.special
    config = transformers.ModernBertConfig(
        vocab_size=words.size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=length,
        local_attention=16 if length == 128 else 128,
        global_attn_every_n_layers=2,
        global_rope_theta=90_000.0,
        local_rope_theta=7_000.0,
        initializer_range=0.2,
        pad_token_id=special.pad,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), special.cls),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), special.sep),
    )
    torch.manual_seed(0)
    model = transformers.ModernBertForMaskedLM(config).eval()
    with torch.no_grad():
        model.decoder.bias.normal_()
    model.save_pretrained(path)
    words.save(path, types=False)
    said = json.loads((path / "config.json").read_text())
    ours = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    if spelling == "released":
        for name in ("layer_types", "rope_parameters"):
            said.pop(name)
        said |= dict(zip(ours, (2, 90_000.0, 7_000), strict=True))
        said |= {"classifier_pooling": "mean", "position_embedding_type": "absolute"}
    else:
        assert "layer_types" in said and "rope_parameters" in said
        for name in ours:
            said.pop(name, None)
    (path / "config.json").write_text(json.dumps(said))
    return model


def test_a_pair_comes_back_bit_for_bit(tmp_path: Path, run: Callable) -> None:
    """A parameter that is left behind, or comes back changed: the logit of two classes, halves, the tie."""
    folder = run()
    hf.export(folder, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "discriminator" / "model.safetensors")
    assert not tensors["classifier.weight"][0].any() and not tensors["classifier.bias"][0]
    hf.import_(tmp_path / "hf/discriminator", tmp_path / "hf/generator", tmp_path / "back")
    before, after = imported.read(folder), imported.read(tmp_path / "back")
    assert before.dims.discriminator == after.dims.discriminator
    assert before.dims.generator == after.dims.generator
    assert before.params.keys() == after.params.keys()
    for name, value in before.params.items():
        np.testing.assert_array_equal(after.params[name], value, err_msg=name)


@pytest.mark.parametrize("tying", ["none", "all"])
def test_other_ties_come_back(tmp_path: Path, run: Callable, tying: str) -> None:
    """A pair whose tie is guessed from shapes that say nothing of it."""
    folder = run(tying=tying, **({"generator_size": 0.5} if tying == "none" else {}))
    hf.export(folder, tmp_path / "hf")
    hf.import_(tmp_path / "hf/discriminator", tmp_path / "hf/generator", tmp_path / "back")
    assert imported.read(tmp_path / "back").dims.spec.tying == tying


def test_a_masked_lm_becomes_a_discriminator(
    tmp_path: Path, small_vocabulary: Tokenizer, capsys: pytest.CaptureFixture
) -> None:
    """A released encoder that cannot be continued by detection, or whose fresh parts nobody is told of."""
    make_theirs(tmp_path / "theirs", small_vocabulary, 128, "released")
    hf.import_(tmp_path / "theirs", None, tmp_path / "run")
    said = capsys.readouterr().err
    assert "under a NEW, UNTRAINED head" in said and "UNTRAINED generator of 1 layers" in said
    hf.import_(None, tmp_path / "theirs", tmp_path / "words")
    words, pair = imported.read(tmp_path / "words"), imported.read(tmp_path / "run")
    assert pair.objective == "electra" and pair.dims.generator.layers == 1
    for name, value in words.params.items():
        if name.startswith("encoder/"):
            there = pair.params[name.replace("encoder/", "discriminator/")]
            np.testing.assert_array_equal(there, value)
    expected = arrays.flatten(jax.eval_shape(Electra(pair.dims).init, jax.random.key(0))["params"])
    assert pair.params.keys() == expected.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm_bias": True}, "norm_bias is True, expected False"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types is a list of 4, expected"),
        ({"global_attn_every_n_layers": 0, "layer_types": None}, "expected a positive integer"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "scaled positions"),
        ({"rope_parameters": None, "local_rope_theta": "x"}, "local_rope_theta is 'x'"),
        ({"local_attention": 0}, "local_attention is 0, expected a positive integer"),
        ({"model_type": "modernbert-decoder"}, "expected 'electra' or 'modernbert'"),
        ({"architectures": ["ModernBertModel"]}, "expected 'ModernBertForMaskedLM'"),
    ],
)
def test_what_is_not_computed_is_refused(
    tmp_path: Path, small_vocabulary: Tokenizer, change: dict[str, Any], said: str
) -> None:
    """A config whose model is another than the one that would be computed."""
    make_theirs(tmp_path / "theirs", small_vocabulary, 128, "saved")
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(UserError) as error:
        hf.import_(None, tmp_path / "theirs", tmp_path / "run")
    assert said in str(error.value) and not (tmp_path / "run").exists()


def test_an_untied_decoder_is_refused(tmp_path: Path, small_vocabulary: Tokenizer) -> None:
    """An output table of its own that is dropped without a word."""
    make_theirs(tmp_path / "theirs", small_vocabulary, 128, "saved")
    file = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(file)
    word = tensors["model.embeddings.tok_embeddings.weight"]
    save_file(tensors | {"decoder.weight": word.clone()}, file, {"format": "pt"})
    hf.import_(None, tmp_path / "theirs", tmp_path / "run")  # the same table twice is no problem
    save_file(tensors | {"decoder.weight": word + 1}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"decoder\.weight differs"):
        hf.import_(None, tmp_path / "theirs", tmp_path / "other")


@pytest.mark.parametrize("layers", ["first:2", "2"])
def test_fewer_layers_are_the_lowest(tmp_path: Path, run: Callable, layers: str) -> None:
    """A layer of local attention that becomes a global one, with positions it has never seen."""
    hf.export(run(), tmp_path / "hf")
    folders = (tmp_path / "hf/discriminator", tmp_path / "hf/generator", tmp_path / "less")
    if layers == "2":
        with pytest.raises(UserError, match="--layers first:2"):
            hf.import_(*folders, layers=layers)
        return
    hf.import_(*folders, layers=layers, positions=64)
    dims = imported.read(tmp_path / "less").dims
    assert (dims.spec.layers, dims.generator.layers, dims.spec.positions) == (2, 2, 64)


def test_a_pair_is_of_one_family(tmp_path: Path, run: Callable, exported: Path) -> None:
    """Tensors of two families that are matched, or a list of all their names."""
    run_folder = tmp_path / "modern"
    run_folder.mkdir()
    hf.export(_moved(run, tmp_path), run_folder / "hf")
    with pytest.raises(UserError, match="a pair is of one"):
        hf.import_(exported / "discriminator", run_folder / "hf/generator", tmp_path / "both")


def _moved(run: Callable, tmp_path: Path) -> Path:
    """A modern workdir beside the one of the fixture of exports."""
    (tmp_path / "run").rename(tmp_path / "electra-run")
    return run()


def test_the_tokenizer_gives_no_types(tmp_path: Path, run: Callable) -> None:
    """Types of tokens that a ModernBERT does not take, in every pipeline's call."""
    hf.export(run(), tmp_path / "hf")
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf/discriminator")
    assert set(words("a text", "another")) == {"input_ids", "attention_mask"}
    tokenizer.load(tmp_path / "hf/discriminator")
