"""A small prepared corpus and the tiny config on it, for runs that take a second."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from ml_collections import ConfigDict

from electra_jax.data import build
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.spec import load_config
from electra_jax.train import evaluate, hardware
from electra_jax.train import mesh as meshes

SMALL = (
    "model.layers=1",
    "model.width=16",
    "model.ffn=32",
    "model.embedding=12",
    "model.positions=32",
    "train.batch=8",
    "train.eval_batches=2",
)


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of random words in rows of 32 tokens, a fifth of them held out."""
    folder = tmp_path_factory.mktemp("train-data")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [a + b for a in "bcdfgklm" for b in ("at", "en", "ig", "ot", "um")]
    (folder / "vocab.txt").write_text("\n".join([*special, *words, "."]) + "\n")
    draw = random.Random(0)
    documents = [
        "\n".join(" ".join(draw.choices(words, k=draw.randrange(4, 30))) + "." for _ in range(6))
        for _ in range(60)
    ]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    build.prepare(
        [str(folder / "corpus.txt")],
        folder / "vocab.txt",
        32,
        folder / "data",
        valid_fraction=0.2,
        workers=1,
    )
    return folder / "data"


@pytest.fixture(scope="session")
def prepared(prepared_folder: Path) -> Prepared:
    """The same, opened."""
    return open_prepared(prepared_folder)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled programs."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def cheap(programs: Path) -> Iterator[None]:
    """One device, programs compiled once for all tests that ask for this, no measured matmul."""
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(programs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "build", lambda spec: one)
        patch.setattr(evaluate, "build_mesh", lambda spec: one)
        patch.setattr(hardware, "_time_matmuls", lambda size, dtype: 1.0)
        yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def config(prepared_folder: Path) -> Callable[..., ConfigDict]:
    """The tiny config, made smaller, on the prepared data, with more overrides."""

    def make(*overrides: str, data: Any = prepared_folder) -> ConfigDict:
        return load_config("tiny", [*SMALL, f"data.path={data}", *overrides])

    return make
