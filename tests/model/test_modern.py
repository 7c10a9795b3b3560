"""The modern family: its logits beside transformers' ModernBERT, its options, its dropout and its FLOPs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.learn.optim import decay_mask
from electra_jax.model import family, flops
from electra_jax.model.blocks import BLOCKS, Stream
from electra_jax.model.electra import Dimensions, Electra, MaskedLM, ModelSpec
from electra_jax.model.initial import fresh
from electra_jax.model.tokens import Tokens
from electra_jax.ops import kernel
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gelu import geglu
from electra_jax.ops.norm import scale_norm
from electra_jax.spec import UserError

MODERN = {
    "family": "modern",
    "layers": 4,
    "width": 16,
    "heads": 2,
    "ffn": 24,
    "embedding": 16,
    "types": 1,
    "generator_size": 1.0,
    "generator_layers": 0.5,
    "local_attention": 4,
}


def filled(dims: Dimensions, module: type = Electra) -> dict[str, Any]:
    """Random parameters, so large that every part matters to the output."""
    params = fresh(module(dims), jax.random.key(0))
    draw = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: (
            (0.3 if x.ndim == 2 else 1.0) * draw.normal(size=x.shape) + (x.ndim == 1)
        ).astype(np.float32),
        params,
    )


def test_gradients_by_hand_are_those_of_the_plain_functions():
    """Catches a gradient of the norm or the gate that was derived wrongly, of inputs or of the scale."""
    draw = np.random.default_rng(0)
    x, y, weights = (jnp.asarray(draw.normal(size=(2, 5, 8)), jnp.float32) for _ in range(3))
    scale = jnp.asarray(draw.normal(size=8), jnp.float32)
    for function, arguments in (
        (lambda a, s: scale_norm(a, s, dtype="float32"), (x, scale)),
        (geglu, (x, y)),
    ):

        def weighed(*a: Any, function: Any = function) -> Any:
            return jnp.sum(weights * function(*a))

        ours = jax.value_and_grad(weighed, argnums=(0, 1))(*arguments)
        with kernel.plain():
            plain = jax.value_and_grad(weighed, argnums=(0, 1))(*arguments)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, plain
        )


def test_its_parameters(dims):
    """Catches a bias, a norm before the lowest layer's attention, a norm that decays, and scales of fresh weights."""
    of = dims(**MODERN, init_std=0.5)
    params = fresh(Electra(of), jax.random.key(0))
    names = {name for name in flatten(params) if name.startswith("discriminator/")}
    layer = ["query", "key", "value", "out", "up", "gate", "down"]
    expected = {f"discriminator/layer_{i}/{name}/kernel" for i in range(4) for name in layer}
    expected |= {f"discriminator/layer_{i}/feed_forward_norm/scale" for i in range(4)}
    expected |= {f"discriminator/layer_{i}/attention_norm/scale" for i in range(1, 4)}
    assert names == expected | {"discriminator/final_norm/scale"}
    rest = {
        name for name in flatten(params) if not name.startswith(("discriminator/", "generator/"))
    }
    assert rest == {
        "embeddings/word",
        "embeddings/norm/scale",
        *(
            f"{net}_head/{name}"
            for net in ("generator", "discriminator")
            for name in ("dense/kernel", "norm/scale")
        ),
        "generator_head/bias",
        "discriminator_head/out/kernel",
        "discriminator_head/out/bias",
    }
    undecayed = {name for name, on in flatten(decay_mask(params)).items() if not on}
    assert undecayed == {name for name in flatten(params) if name.endswith(("scale", "bias"))}
    cut = 0.88  # of a normal distribution that is cut at two deviations
    flat = flatten(params)
    for name, std in {
        "discriminator/layer_1/up/kernel": 0.5,
        "discriminator/layer_1/down/kernel": 0.5 / 8**0.5,
        "generator/layer_1/out/kernel": 0.5 / 4**0.5,
        "generator_head/dense/kernel": 0.5 / 4**0.5,
        "discriminator_head/out/kernel": 0.25,
    }.items():
        spread = 0.35 if flat[name].size < 20 else 0.12
        assert abs(float(flat[name].std()) / (cut * std) - 1) < spread, name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"local_attention": 8}, "model.local_attention=8: not options of model.family=electra"),
        ({"mlp_dropout": 0.1}, "model.mlp_dropout=0.1: not options"),
        (
            MODERN | {"types": 2, "dropout": 0.1},
            "model.types=2, model.dropout=0.1: not options of model.family=modern",
        ),
        (MODERN | {"embedding": 12}, "model.embedding=12 is not model.width=16"),
        (
            MODERN | {"generator_size": 0.5},
            "set model.generator_size=1.0, with fewer generator_layers",
        ),
        (MODERN | {"local_attention": 5}, "model.local_attention=5 must be an even number"),
        (
            MODERN | {"local_attention": 12},
            "model.local_attention=12 is wider than the longest row",
        ),
        (MODERN | {"width": 18, "embedding": 18}, "9 channels a head"),
        (
            MODERN | {"global_rope_theta": 1.5},
            "beyond what rotary positions of model.global_rope_theta=1.5",
        ),
        (MODERN | {"local_rope_theta": 0.5}, "model.local_rope_theta=0.5 must be above 1"),
        (
            MODERN | {"positions": 100_000, "global_rope_theta": 1e4},
            "3,141; choose shorter rows or a larger base",
        ),
        ({"family": "moderm"}, "modern"),
    ],
)
def test_what_does_not_go_together_is_refused(dims, changes: dict[str, Any], said: str):
    """Catches an option that would be ignored, and a shape that would fail in the compiler or mean nothing."""
    with pytest.raises(UserError) as error:
        dims(**changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_layers_alternate(dims):
    """Catches a window of another size, layers counted from another end, and bases that are exchanged."""
    stack = dims(
        **MODERN | {"local_attention": 0, "layers": 7, "positions": 10}
    ).discriminator.stack
    assert [layer.window for layer in stack] == [None, 64, 64] * 2 + [None]
    assert [layer.rope_theta for layer in stack] == [160_000, 10_000, 10_000] * 2 + [160_000]
    assert [layer.normed for layer in stack] == [False] + [True] * 6
    assert family.farthest(10_000, 64) == 23_558


def test_a_generator_of_the_same_width_has_the_same_heads(dims):
    """Catches ELECTRA's rule, heads of 64 and four times the width, in a family whose layers are others."""
    generator = dims(**MODERN).generator
    assert (generator.layers, generator.stack[0].heads, generator.stack[0].ffn) == (2, 2, 24)
    small = dims(**MODERN | {"generator_size": 0.5, "tying": "none"}).generator
    assert (small.embedding, small.stack[0].heads, small.stack[0].ffn) == (8, 1, 12)


def test_documents_of_a_row_do_not_see_each_other(dims):
    """Catches a window or a rotation that reaches over the border of two documents packed together."""
    of = dims(**MODERN, tying="embeddings")
    params = filled(of)
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 40, (1, 10))
    docs = np.array([[1] * 4 + [2] * 6])
    places = np.concatenate([np.arange(4), np.arange(6)])[None]

    def logits(ids: Any, docs: Any, places: Any) -> Any:
        tokens = Tokens(*map(jnp.asarray, (ids, 0 * ids, docs, places)))
        return Electra(of).apply({"params": params}, tokens, method="discriminate")

    whole = logits(ids, docs, places)
    for part in (slice(0, 4), slice(4, 10)):
        alone = logits(*(x[:, part] for x in (ids, docs, places)))
        np.testing.assert_allclose(whole[:, part], alone, atol=1e-5)


def test_flops_count_what_a_query_sees(dims):
    """Catches a local layer that is counted as a global one, and a gate that is not counted."""
    at = np.arange(10)
    for window in (None, 2, 9, 20):
        seen = np.abs(at[:, None] - at) <= (20 if window is None else window)
        assert flops.pairs(10, window) == seen.sum()
    spec = dims(**MODERN).discriminator
    per_layer = 10 * (8 * 16**2 + 6 * 16 * 24)
    seen = 2 * 100 + 2 * flops.pairs(10, 2)  # layers 0 and 3 are global
    assert flops.encoder(spec, 10) == 4 * per_layer + 4 * 16 * seen


@pytest.mark.parametrize("where", ["embedding_dropout", "mlp_dropout", "attention_dropout"])
def test_each_dropout_drops(dims, tiny, where: str):
    """Catches an option of dropout that reaches no layer, and one that drops where there is no noise."""
    tokens, noise = Tokens.of(tiny.batch), noise_ops.for_rows(jax.random.key(0), jnp.arange(2))
    of, off = dims(**MODERN, **{where: 0.5}), dims(**MODERN)
    params = filled(of)

    def logits(dims: Dimensions, noise: Any) -> Any:
        return Electra(dims).apply({"params": params}, tokens, noise, method="discriminate")

    plain = logits(off, None)
    np.testing.assert_array_equal(logits(of, None), plain)
    np.testing.assert_array_equal(logits(off, noise), plain)
    assert np.abs(logits(of, noise) - plain).max() > 0.01


@pytest.mark.parametrize("remat", ["layer", "attention"])
def test_computing_again_changes_nothing(dims, tiny, remat: str):
    """Catches a layer that is computed again with other noise than before."""
    tokens, noise = Tokens.of(tiny.batch), noise_ops.for_rows(jax.random.key(0), jnp.arange(2))
    changes = MODERN | {"mlp_dropout": 0.2, "attention_dropout": 0.2, "layers": 2}
    params = filled(dims(**changes))

    def gradient(remat: str) -> Any:
        network = Electra(dims(**changes, remat=remat))
        return jax.jit(
            jax.grad(
                lambda p: jnp.sum(
                    network.apply({"params": p}, tokens, noise, method="discriminate")
                )
            )
        )(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradient(remat), gradient("none")
    )


def test_the_stream_keeps_its_dtype(dims):
    """Catches a residual stream that takes on the dtype of the products."""
    of = dims(**MODERN, dtype="bfloat16")
    layer = dataclasses.replace(of.discriminator.stack[1])
    tokens = Tokens.single()
    block = BLOCKS[layer.block](layer)
    stream = jax.eval_shape(
        lambda: block.init_with_output(
            jax.random.key(0), Stream(jnp.zeros((1, 1, 16))), tokens, None
        )
    )[0]
    assert stream.value.dtype == jnp.float32


@pytest.mark.torch
@pytest.mark.parametrize("length", [24, 128])
def test_words_are_those_of_transformers(length: int):
    """Catches a layer that computes something else: order of norms, halves of Wi, window, bases, angles."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    changes = MODERN | {"local_attention": 8, "layers": 4, "positions": length}
    base = {
        "tying": "all",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "init_std": 0.02,
        "remat": "none",
    }
    base |= dict.fromkeys(("dtype", "residual_dtype"), "float32")
    of = Dimensions(ModelSpec(**changes | base), 40)
    params = filled(of, MaskedLM)
    ids = np.random.default_rng(2).integers(0, 40, (2, length))
    tokens = Tokens.of(
        {"ids": jnp.asarray(ids), "types": jnp.asarray(0 * ids), "docs": jnp.asarray(0 * ids + 1)}
    )
    every = jnp.broadcast_to(jnp.arange(length), ids.shape)
    hidden, table, bias = MaskedLM(of).apply({"params": params}, tokens, every, method="generate")
    ours = (hidden @ table.T + bias)[..., :40]

    config = transformers.ModernBertConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        local_attention=8,
        **{f"{name}_token_id": 0 for name in ("pad", "eos", "bos", "cls", "sep")},
    )
    theirs = transformers.ModernBertForMaskedLM(config).eval()
    theirs.load_state_dict({name: torch.tensor(x) for name, x in _renamed(params).items()})
    with torch.no_grad():
        expected = theirs(
            torch.tensor(ids), attention_mask=torch.ones_like(torch.tensor(ids))
        ).logits.numpy()
    assert np.abs(ours - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def _renamed(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Our parameters of a masked LM by the names of transformers, written down by hand."""
    word = params["embeddings"]["word"][:40]
    found = {
        "model.embeddings.tok_embeddings.weight": word,
        "model.embeddings.norm.weight": params["embeddings"]["norm"]["scale"],
        "model.final_norm.weight": params["encoder"]["final_norm"]["scale"],
        "head.dense.weight": params["head"]["dense"]["kernel"].T,
        "head.norm.weight": params["head"]["norm"]["scale"],
        "decoder.weight": word,
        "decoder.bias": params["head"]["bias"][:40],
    }
    for i in range(4):
        layer, at = params["encoder"][f"layer_{i}"], f"model.layers.{i}"
        qkv = [layer[name]["kernel"] for name in ("query", "key", "value")]
        found |= {
            f"{at}.attn.Wqkv.weight": np.concatenate(qkv, axis=1).T,
            f"{at}.attn.Wo.weight": layer["out"]["kernel"].T,
            f"{at}.mlp.Wi.weight": np.concatenate(
                [layer[n]["kernel"] for n in ("up", "gate")], axis=1
            ).T,
            f"{at}.mlp.Wo.weight": layer["down"]["kernel"].T,
            f"{at}.mlp_norm.weight": layer["feed_forward_norm"]["scale"],
        }
        if i:
            found[f"{at}.attn_norm.weight"] = layer["attention_norm"]["scale"]
    return found
