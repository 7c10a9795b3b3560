"""The seams between an encoder and its layers: what each of them is given, and in what they may differ."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.learn.arrays import flatten
from electra_jax.model import blocks
from electra_jax.model.backbone import Encoder
from electra_jax.model.blocks import PostNormBlock, Stream
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops


class Positions(nn.Module):
    """A block that gives the positions of its tokens, so many times as its layer has heads."""

    spec: blocks.LayerSpec

    def __call__(self, stream, tokens, noise):
        """The stream after this layer."""
        assert noise is None
        return Stream(stream.value + self.spec.heads * tokens.positions[..., None])


def test_layers_of_one_encoder_may_differ(tiny, monkeypatch):
    """Catches a layer that gets another one's spec or family, and positions that do not reach a layer."""
    monkeypatch.setitem(blocks.BLOCKS, "positions", Positions)
    spec = tiny.dims.discriminator
    first = spec.stack[0]
    others = [
        dataclasses.replace(first, block="positions", heads=heads, residual_dtype="float32")
        for heads in (1, 2)
    ]
    spec = dataclasses.replace(spec, stack=(first, *others, dataclasses.replace(first, ffn=24)))
    x, tokens = np.ones((2, 10, 12), np.float32), Tokens.of(tiny.batch)
    shapes = flatten(jax.eval_shape(lambda: Encoder(spec).init(jax.random.key(0), x, tokens, None)))
    assert shapes["params/layer_0/up/kernel"].shape == (16, 48)
    assert shapes["params/layer_3/up/kernel"].shape == (16, 24)
    assert not any("layer_1" in name or "layer_2" in name for name in shapes)
    params = {"params": {"project": tiny.params["discriminator"]["project"]}}
    two = dataclasses.replace(spec, stack=(*others,))
    out = Encoder(two).apply(params, x, tokens, None)
    project = params["params"]["project"]
    expected = x @ project["kernel"] + project["bias"] + 3 * tokens.positions[..., None]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("theta", [0.0, 100.0])
def test_one_place_asks_for_attention(tiny, monkeypatch, recompute: bool, theta: float):
    """Catches a layer that goes around `attend`, where its mask and rotation are decided."""
    asked = []

    def recorded(qkv, bias, mask, *, heads, dropout, noise, rotation):
        turned = None if rotation is None else rotation.cos_BxLxA.shape
        asked.append((qkv.shape, bias.shape, heads, dropout, noise is None, mask.window, turned))
        return qkv[..., : qkv.shape[-1] // 3] * (mask.docs_BxL[..., None] > 0)

    monkeypatch.setattr(blocks, "self_attention", recorded)
    layer = dataclasses.replace(
        tiny.dims.discriminator.stack[0],
        attention_dropout=0.1,
        recompute_attention=recompute,
        window=5,
        rope_theta=theta,
    )
    noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(2))
    stream, tokens = Stream(jnp.ones((2, 10, 16))), Tokens.of(tiny.batch)
    params = {"params": tiny.params["discriminator"]["layer_0"]}
    jax.eval_shape(lambda: PostNormBlock(layer).apply(params, stream, tokens, noise))
    turned = (2, 10, 4) if theta else None
    assert asked == [((2, 10, 48), (48,), 2, 0.1, False, 5, turned)]


def test_the_stream_keeps_its_precision():
    """Catches an operand that takes the stream's place, whose sums would be rounded at every layer."""
    value = jnp.full((1, 1, 2), 1 + 2**-12, jnp.float32)
    assert Stream(value).as_operand("bfloat16").dtype == jnp.bfloat16
    other = jnp.zeros((1, 1, 2), jnp.bfloat16)
    assert Stream(value, other).as_operand("bfloat16") is other
