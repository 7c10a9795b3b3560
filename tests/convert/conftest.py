"""What the conversion tests share: dimensions by size, random trees, and rows of real text."""

import gzip
import itertools
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.convert import hf
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, MaskedLM, ModelSpec
from electra_jax.model.layers import padded_vocab
from electra_jax.text import tokenizer
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.workdir import imported

TINY = ModelSpec(
    layers=2,
    width=32,
    heads=2,
    ffn=64,
    embedding=16,
    positions=40,
    types=2,
    generator_size=0.5,
    generator_layers=1.0,
    tying="embeddings",
    dropout=0.1,
    attention_dropout=0.1,
    init_std=0.02,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
SMALL = replace(
    TINY,
    layers=12,
    width=256,
    heads=4,
    ffn=1024,
    embedding=128,
    positions=512,
    generator_size=0.25,
)
BASE = replace(SMALL, width=768, heads=12, ffn=3072, embedding=768, generator_size=1 / 3)
LARGE = replace(SMALL, layers=24, width=1024, heads=16, ffn=4096, embedding=1024)
SIZES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE}


@pytest.fixture(scope="session")
def make_dims() -> Callable[..., Dimensions]:
    """size ("tiny", "small", "base", "large"), tying, vocabulary, changed fields -> Dimensions."""

    def make(
        size: str = "tiny", tying: str = "embeddings", vocab_size: int = 100, **changes: object
    ) -> Dimensions:
        return Dimensions(replace(SIZES[size], tying=tying, **changes), vocab_size)

    return make


@pytest.fixture(scope="session")
def initial() -> Callable[..., dict[str, np.ndarray]]:
    """Dimensions, seed, module -> flat random parameters at the scale of a fresh model.

    Biases and norms are moved off 0 and 1: left there, they would hide that they went to the wrong
    place. Drawn with numpy, which takes no compilation.
    """

    def init(dims: Dimensions, seed: int = 0, module: type = Electra) -> dict[str, np.ndarray]:
        shapes = jax.eval_shape(module(dims).init, jax.random.key(0))["params"]
        rng = np.random.default_rng(seed)
        flat = {}
        for name, x in arrays.flatten(shapes).items():
            value = rng.standard_normal(x.shape, np.float32)
            np.clip(value, -2, 2, out=value)
            value *= np.float32(0.02)
            if "project/kernel" in name or name == "discriminator_head/out/kernel":
                value *= np.float32(50 * (2 / sum(x.shape)) ** 0.5)  # glorot's deviation
            if name.endswith("scale"):
                value += 1
            if x.shape[0] == padded_vocab(dims.vocab_size):
                value[dims.vocab_size :] = 0
            flat[name] = value
        return flat

    return init


@pytest.fixture(scope="session")
def vocabulary(shared: Path) -> Tokenizer:
    """The uncased English WordPiece vocabulary of BERT and ELECTRA, 30,522 entries."""
    return tokenizer.load(shared / "vocab" / "bert-base-uncased-vocab.txt")


@pytest.fixture(scope="session")
def paragraphs(shared: Path) -> list[str]:
    """Paragraphs of held-out Wikipedia, in order."""
    with gzip.open(shared / "pretrain" / "valid" / "enwiki-valid.txt.gz", "rt") as f:
        return [line.strip() for line in itertools.islice(f, 400) if len(line) > 60]


@pytest.fixture(scope="session")
def small_vocabulary(paragraphs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A WordPiece vocabulary of a few hundred entries, whose size is no multiple of 128."""
    words = sorted({w for p in paragraphs for w in re.findall("[a-z]+", p.lower())})[:300]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    entries += [f"##{c}" for c in letters] + [w for w in words if len(w) > 1]
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(entries) + "\n")
    return tokenizer.load(path)


@pytest.fixture(scope="session")
def make_workdir(
    small_vocabulary: Tokenizer, initial: Callable[..., dict[str, np.ndarray]]
) -> Callable[..., Path]:
    """folder, dimensions [, objective, tokenizer, seed] -> a workdir that holds a random import."""

    def make(
        folder: Path,
        dims: Dimensions,
        objective: str = "electra",
        words: Tokenizer = small_vocabulary,
        seed: int = 0,
    ) -> Path:
        folder.mkdir()
        words.save(folder / "tokenizer")
        params = initial(dims, seed, MaskedLM if objective == "mlm" else Electra)
        source = {"folders": [{"name": "nowhere", "sha256": {}}], "fresh_generator": False}
        imported.write(folder, dims, objective, params, source)
        return folder

    return make


@pytest.fixture(scope="session")
def exported_once(
    make_dims: Callable[..., Dimensions],
    make_workdir: Callable[..., Path],
    small_vocabulary: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A tiny random pair: `run` is its workdir, `hf` its export."""
    folder = tmp_path_factory.mktemp("pair")
    hf.export(
        make_workdir(folder / "run", make_dims(vocab_size=small_vocabulary.size)), folder / "hf"
    )
    return folder


@pytest.fixture
def exported(tmp_path: Path, exported_once: Path) -> Path:
    """The export of a tiny random pair, to be changed at will; its workdir is ../run."""
    shutil.copytree(exported_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "hf"


def rows_of(
    words: Tokenizer, paragraphs: list[str], count: int, length: int
) -> dict[str, np.ndarray]:
    """Rows of [CLS] A [SEP] B [SEP] from real text, each with another share of padding."""
    s = words.special
    rows = {k: np.zeros((count, length), np.int32) for k in ("ids", "types", "docs")}
    rows["ids"][:] = s.pad
    pieces = [ids for ids in words.encode_batch(paragraphs) if len(ids) >= length]
    for i in range(count):
        used = length - i * length // (2 * count)
        a = pieces[2 * i][: (used - 3) // 2]
        b = pieces[2 * i + 1][: used - 3 - len(a)]
        row = [s.cls, *a, s.sep, *b, s.sep]
        rows["ids"][i, :used] = row
        rows["types"][i, len(a) + 2 : used] = 1
        rows["docs"][i, :used] = 1
    rows["positions"] = np.tile(np.arange(length, dtype=np.int32), (count, 1))
    return rows


@pytest.fixture(scope="session")
def rows(paragraphs: list[str]) -> Callable[..., dict[str, np.ndarray]]:
    """tokenizer, count, length -> rows with padding and two segments."""
    return lambda words, count, length: rows_of(words, paragraphs, count, length)
