"""What the tests of scoring share: random pairs and masked LMs, as workdirs and as the folders they leave as."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.convert import hf
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, MaskedLM, ModelSpec
from electra_jax.text import tokenizer
from electra_jax.workdir import imported

WORDS = "the a cat dog sits sit on mat red ##s ##ing ##ged . , é"
SPEC = ModelSpec(
    layers=2,
    width=16,
    heads=2,
    ffn=24,
    embedding=12,
    positions=20,
    types=2,
    generator_size=0.5,
    generator_layers=0.5,
    tying="embeddings",
    dropout=0.1,
    attention_dropout=0.1,
    init_std=0.02,
    dtype="bfloat16",
    residual_dtype="float32",
    remat="layer",
)


def random_params(module: type, dims: Dimensions, seed: int = 0) -> dict[str, np.ndarray]:
    """Flat parameters far enough from 0 that every one of them changes the scores; the vocabulary's padding is 0."""
    shapes = jax.eval_shape(module(dims).init, jax.random.key(0))["params"]
    rng, flat = np.random.default_rng(seed), {}
    for name, x in arrays.flatten(shapes).items():
        value = rng.standard_normal(x.shape).astype(np.float32) * np.float32(0.4)
        if x.shape[0] == dims.padded_rows:
            value[dims.rows :] = 0
        flat[name] = value
    return flat


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """objective -> a folder with a random model as a workdir, `run`, and its export, `hf`."""

    def make(objective: str, module: type) -> Path:
        folder = tmp_path_factory.mktemp(objective)
        vocabulary = folder / "vocab.txt"
        special = "[PAD] [UNK] [CLS] [SEP] [MASK]"
        vocabulary.write_text("\n".join(f"{special} {WORDS}".split()) + "\n", encoding="utf-8")
        words = tokenizer.load(vocabulary)
        dims = Dimensions(SPEC, words.size)
        (folder / "run").mkdir()
        words.save(folder / "run" / "tokenizer")
        source = {"folders": [{"name": "nowhere", "sha256": {}}], "fresh_generator": False}
        params = random_params(module, dims)
        imported.write(folder / "run", dims, objective, params, source)
        hf.export(folder / "run", folder / "hf")
        return folder

    return make


@pytest.fixture(scope="session")
def pair(make_model: Callable[..., Path]) -> Path:
    """A discriminator and its generator."""
    return make_model("electra", Electra)


@pytest.fixture(scope="session")
def masked_lm(make_model: Callable[..., Path]) -> Path:
    """A masked LM."""
    return make_model("mlm", MaskedLM)
