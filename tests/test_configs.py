"""The recipes: the paper's settings, every section accepted by its room, headers that say what they are."""

import ast
import re

import jax
import pytest

from electra_jax.bench.synthetic import synthetic
from electra_jax.model import initial
from electra_jax.model.electra import Electra, count_parameters
from electra_jax.pretrain import speed
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config, shipped_configs

MODERN = ("modern-small", "modern-base", "modern-large")
MODERN_KEYS = (*MODERN, "mini", "quickstart")
NAMES = ("small", "base", "large", "nvidia", "electra-mini", "tiny", *MODERN_KEYS)

# Clark et al., 2020, table 6, and section 1.3 of the released code's constants; generator widths and heads follow.
PAPER = {
    #         layers width heads ffn  emb   gen     mask  lr    batch  steps
    "small": (12, 256, 4, 1024, 128, 1 / 4, 0.15, 5e-4, 128, 1_000_000),
    "base": (12, 768, 12, 3072, 768, 1 / 3, 0.15, 2e-4, 256, 766_000),
    "large": (24, 1024, 16, 4096, 1024, 1 / 4, 0.25, 2e-4, 2048, 400_000),
}
# Parameters, and useful FLOPs a token in rows of so many tokens, with a vocabulary of 30,522: as the recipes say.
SIZES = {
    "small": (14_196_219, 128, 70e6),
    "base": (119_386_427, 512, 668e6),
    "large": (354_655_291, 512, 2.17e9),
    "modern-small": (19_288_891, 128, 80e6),
    "modern-base": (130_845_499, 1024, 722e6),
    "modern-large": (382_095_163, 1024, 2.30e9),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_accepted(name: str):
    """Catches a key that a room renamed, dropped or added without the recipes."""
    run_spec(load_config(name))


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str):
    """Catches a recipe that has the paper's dimensions but not its hyperparameters, as the original's has."""
    c = load_config(name)
    m, o = c.model, c.objective
    found = (m.layers, m.width, m.heads, m.ffn, m.embedding, m.generator_size, o.mask_prob)
    assert (*found, c.optim.peak_lr, c.train.batch, c.train.steps) == PAPER[name]
    assert (m.positions, m.types, m.generator_layers, m.tying) == (512, 2, 1.0, "embeddings")
    assert (m.dropout, m.attention_dropout, m.init_std) == (0.1, 0.1, 0.02)
    assert o.mask_split == (0.85, 0.15, 0.0)
    assert (o.name, o.temperature, o.generator_weight, o.discriminator_weight) == (
        "electra",
        1,
        1,
        50,
    )
    assert not (o.whole_word or o.disallow_correct or o.uniform_generator)
    optim = c.optim
    assert (optim.name, optim.warmup, optim.lr_power, optim.clip_norm) == ("adam", 10_000, 1, 1)
    assert (optim.beta1, optim.beta2, optim.eps, optim.weight_decay) == (0.9, 0.999, 1e-6, 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_headers_say_how_and_what(name: str):
    """Catches a recipe without its command, hardware or result, or whose command is for another recipe."""
    header = ast.get_docstring(ast.parse(shipped_configs()[name].read_text()))
    assert header is not None
    assert re.search(rf"electra-jax pretrain --config {name}[ :]", header)
    assert "--seq-len" in header
    assert "\nHardware: " in header
    assert "\nResult: " in header


def test_all_recipes_have_the_same_keys():
    """Catches an override that works with one recipe and is unknown to another; those of a family are its own."""
    keys = {name: {s: set(v) for s, v in load_config(name).to_dict().items()} for name in NAMES}
    for name, sections in keys.items():
        assert sections.keys() == keys["small"].keys()
        for section, found in sections.items():
            own = found - keys["small"][section]
            assert keys["small"][section] <= found
            assert name in MODERN_KEYS or not own, (name, own)
    assert all(keys[name] == keys["modern-small"] for name in MODERN_KEYS)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_that_are_said(name: str):
    """Catches a recipe whose first lines say another size than it has, and dimensions that fit no tile."""
    parameters, length, flops = SIZES[name]
    run = run_spec(load_config(name))
    dims = run.dimensions(30_522)
    shapes = jax.eval_shape(lambda: initial.fresh(Electra(dims), jax.random.key(0)))
    assert count_parameters(shapes, dims) == parameters
    (phase,) = run.phases(synthetic(length, 30_522))
    per_token = speed.useful_flops(run, phase) / (phase.batch * length)
    assert per_token == pytest.approx(flops, rel=0.007)
    source = shipped_configs()[name].read_text()
    assert f"{parameters:,} parameters with a vocabulary of 30,522" in source
    if name in MODERN:
        assert f" {flops / 1e9:.2f} billion" in source or f"{flops / 1e6:.0f} million" in source
        layer = dims.discriminator.stack[0]
        assert layer.width // layer.heads == 64
        assert layer.width % 128 == layer.ffn % 128 == 0


@pytest.mark.parametrize("name", MODERN)
def test_the_last_tenth_of_a_modern_run_is_on_long_rows(name: str):
    """Catches phases that do not add up, and a long stretch whose steps have another number of tokens."""
    train = run_spec(load_config(f"{name}:long/")).train
    short, long = train.phases
    assert short.steps + long.steps == train.steps
    assert (short.path, long.path, long.steps) == ("", "long/", train.steps // 10)
    assert long.batch * 8192 == train.batch * SIZES[name][1]


def test_the_two_phases_of_nvidias_recipe():
    """Catches phases whose steps do not add up, and the second one on the data of the first."""
    train = run_spec(load_config("nvidia:elsewhere/")).train
    short, long = train.phases
    assert (short.steps, long.steps, train.steps) == (10_000, 930, 10_930)
    assert (short.path, long.path, long.batch, train.batch) == ("", "elsewhere/", 27_648, 67_584)
    assert (short.peak_lr, long.peak_lr) == (6e-3, 4e-3)
