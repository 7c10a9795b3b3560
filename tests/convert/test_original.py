"""A checkpoint that the original's own code trained: our networks give the logits that its own graph gave."""

from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.convert import hf
from electra_jax.learn import arrays
from electra_jax.model.electra import Electra
from electra_jax.model.tokens import Tokens
from electra_jax.workdir import imported


@pytest.fixture(scope="module")
def checkpoints(shared: Path) -> Path:
    """The folder of checkpoints; its README.md says how they were made."""
    path = shared / "checkpoints"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path


def test_logits_are_those_of_the_originals_graph(checkpoints: Path, tmp_path: Path):
    """Catches a network that agrees with other ports of ELECTRA and not with ELECTRA."""
    for role in ("discriminator", "generator"):
        folder = tmp_path / role
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((checkpoints / "safetensors" / role / name).read_bytes())
        (folder / "vocab.txt").write_bytes((checkpoints / "tf1" / "vocab.txt").read_bytes())
    hf.import_(tmp_path / "discriminator", tmp_path / "generator", tmp_path / "run")
    found = imported.read(tmp_path / "run")
    assert found is not None
    given, wanted = (
        np.load(checkpoints / f"{name}.npz") for name in ("input", "expected_logits_original")
    )
    ids = given["input_ids"].astype(np.int32)
    docs = given["attention_mask"].astype(np.int32)
    types = given["token_type_ids"].astype(np.int32)
    params = {"params": arrays.nest(found.params)}
    model = Electra(found.dims)

    def logits(params, ids):
        tokens = Tokens.of({"ids": ids, "types": types, "docs": docs})
        replaced = model.apply(params, tokens, method=Electra.discriminate)
        hidden, table, bias = model.apply(params, tokens, tokens.positions, method=Electra.generate)
        return replaced, hidden @ table.T + bias

    ours = jax.device_get(jax.jit(logits)(params, ids))
    for name, got in zip(("discriminator", "generator"), ours, strict=True):
        expected = wanted[name]
        got = got[..., : found.dims.vocab_size] if name == "generator" else got
        apart = np.abs(got - expected)[docs > 0].max()
        assert apart <= 3e-6, (name, apart)
