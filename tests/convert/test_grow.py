"""A model made to fit something new: every row, position and layer of it says where it came from."""

from pathlib import Path

import numpy as np
import pytest

from electra_jax.convert import grow
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions, Electra, ModelSpec
from electra_jax.spec import UserError
from electra_jax.text import tokenizer as tokenizers
from electra_jax.text.tokenizer import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OLD = [*SPECIAL, "the", "sea", "un", "##der", "##sea", "s", "##ea"]
NEW = ["[MASK]", "[PAD]", "[CLS]", "[UNK]", "[SEP]", "the", "under", "##ea", "undersea", "ζ"]


def vocabulary(path: Path, tokens: list[str]) -> Tokenizer:
    path.write_text("\n".join(tokens) + "\n")
    return tokenizers.load(path)


@pytest.fixture
def old(tmp_path: Path) -> Tokenizer:
    return vocabulary(tmp_path / "old.txt", OLD)


@pytest.fixture
def dims(old: Tokenizer) -> Dimensions:
    spec = ModelSpec(
        layers=5,
        width=16,
        heads=2,
        ffn=32,
        embedding=8,
        positions=6,
        types=2,
        generator_size=0.5,
        generator_layers=0.4,
        tying="embeddings",
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.02,
        dtype="float32",
        residual_dtype="float32",
        remat="none",
    )
    return Dimensions(spec, old.size)


@pytest.fixture
def params(dims: Dimensions) -> dict[str, np.ndarray]:
    """Parameters that are all different."""
    import jax

    from electra_jax.model import initial

    shapes = jax.eval_shape(lambda: initial.fresh(Electra(dims), jax.random.key(0)))
    draw = np.random.default_rng(0)
    return {
        name: draw.normal(size=s.shape).astype(np.float32)
        for name, s in arrays.flatten(shapes).items()
    }


def fits(dims: Dimensions, params: dict[str, np.ndarray]) -> None:
    """The parameters are those of a model of these dimensions."""
    import jax

    from electra_jax.model import initial

    shapes = jax.eval_shape(lambda: initial.fresh(Electra(dims), jax.random.key(0)))
    expected = {name: s.shape for name, s in arrays.flatten(shapes).items()}
    assert {name: value.shape for name, value in params.items()} == expected


def test_a_new_vocabulary(dims, params, old, tmp_path):
    """Catches rows by number in place of token, special tokens by place, new tokens that begin as noise or zero, and
    pieces of the beginning of a word for a token inside one."""
    new = vocabulary(tmp_path / "new.txt", NEW)
    made, found, said = grow.grow(grow.Change(tokenizer=new), dims, params, old)
    fits(made, found)
    before, after = params["embeddings/word"], found["embeddings/word"]
    rows = {token: before[number] for number, token in enumerate(OLD)}
    for number, token in enumerate(NEW[:6]):
        assert np.array_equal(after[number], rows[token]), token
    assert np.allclose(after[6], (rows["un"] + rows["##der"]) / 2)
    assert np.array_equal(after[7], rows["##ea"])
    assert np.allclose(after[8], (rows["un"] + rows["##der"] + rows["##sea"]) / 3)
    assert np.allclose(after[9], before[: len(OLD)].mean(axis=0))
    assert not after[len(NEW) :].any()
    bias = params["generator_head/bias"]
    assert np.allclose(found["generator_head/bias"][6], (bias[7] + bias[8]) / 2)
    assert said == [
        "of 10 tokens 7 keep their row, 2 begin as the mean of the pieces that the old tokenizer cuts them into, 1 as "
        "the mean of all rows"
    ]


def test_a_token_inside_a_word(old, tmp_path):
    """Catches "##sea" cut as the word "sea"."""
    new = vocabulary(tmp_path / "new.txt", [*SPECIAL, "##seas", "##seasea"])
    ids = {token: number for number, token in enumerate(OLD)}
    assert grow.pieces(new, old)[6] == [ids["##sea"], ids["##sea"]]


def test_longer_and_shorter_rows(dims, params, old):
    """Catches positions that begin at [CLS]'s row again, and tables of one network alone."""
    made, found, said = grow.grow(grow.Change(positions=14), dims, params, old)
    fits(made, found)
    at = [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3]
    assert np.array_equal(found["embeddings/position"], params["embeddings/position"][at])
    assert "6 positions became 14" in said[0]
    made, found, _ = grow.grow(grow.Change(positions=8), dims, params, old)
    fits(made, found)
    assert np.array_equal(
        found["embeddings/position"], params["embeddings/position"][[0, 1, 2, 3, 4, 5, 1, 2]]
    )


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("3", [0, 2, 4]), ("first:3", [0, 1, 2]), ("1", [0]), ("5", [0, 1, 2, 3, 4])],
)
def test_fewer_layers(dims, params, old, asked, kept):
    """Catches layers that keep their old numbers, the wrong ones, and a generator that loses some, too."""
    count, first = grow.layers_of(asked)
    made, found, _ = grow.grow(grow.Change(layers=count, first=first), dims, params, old)
    fits(made, found)
    for i, layer in enumerate(kept):
        name = "up/kernel"
        before = params[f"discriminator/layer_{layer}/{name}"]
        assert np.array_equal(found[f"discriminator/layer_{i}/{name}"], before)
    assert made.generator.layers == dims.generator.layers == 2


def test_what_cannot_be(dims, params, old):
    """Catches a flag that is read as something else, and more layers than there are."""
    for text in ("0", "last:3", "3.5", "-1", ""):
        with pytest.raises(UserError, match="--layers"):
            grow.layers_of(text)
    with pytest.raises(UserError, match="the model has 5"):
        grow.grow(grow.Change(layers=6), dims, params, old)
    with pytest.raises(UserError, match="must be in"):
        grow.grow(grow.Change(positions=2**21), dims, params, old)
