"""The layers of an encoder: a block a family, made of attention, feed-forward and norms over the residual stream."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.model.layers import Matrix, ScaleNorm, Weights, scale_and_shift
from electra_jax.model.tokens import Tokens
from electra_jax.ops import dense
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention import Mask, Rotation, self_attention
from electra_jax.ops.feedforward import feed_forward, gated_feed_forward
from electra_jax.ops.noise import Noise
from electra_jax.ops.norm import residual_norm

# A branch of a block: a product [B, L, D] in the dtype of products, and the bias [D] that is still to be added to it.
Branch = tuple[jax.Array, jax.Array]


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """What one layer needs to know. The layers of an encoder have one width and may differ in the rest."""

    width: int
    heads: int
    ffn: int
    dropout: float
    attention_dropout: float
    init_std: float
    dtype: str  # of products
    residual_dtype: str  # of the stream between layers
    recompute_attention: bool = False  # in the backward pass, from queries, keys and values
    block: str = "post_norm"  # its family, a name of BLOCKS
    window: int | None = None  # the farthest key that a query sees, in tokens; None: all
    rope_theta: float = 0.0  # base of rotary positions; 0: none, they are in the embeddings
    # Of pre-norm layers:
    mlp_dropout: float = 0.0  # of the numbers between the feed-forward products
    out_init_std: float = 0.0  # of the products that end a branch
    normed: bool = True  # whether attention reads its own norm of the stream; the lowest layer reads the embeddings'
    causal: bool = False  # whether a position sees no later one


class Stream(NamedTuple):
    """The residual stream between two layers, [B, L, D]."""

    value: jax.Array  # in its own dtype: what branches are added to
    operand: jax.Array | None = None  # the same in the dtype of products, where it is at hand

    def as_operand(self, dtype: str) -> jax.Array:
        """What a branch reads."""
        return self.value.astype(dtype) if self.operand is None else self.operand


class Attention(nn.Module):
    """Self-attention within documents, and the product that mixes its heads."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, tokens: Tokens, noise: Noise | None) -> Branch:
        """The branch of these operands; dropout on the attention weights when there is noise."""
        s = self.spec
        # One product for queries, keys and values: it reads x once, and one matrix is wide enough for a TPU.
        kernels, biases = zip(
            *(_weights(s, name, s.width, s.width) for name in ("query", "key", "value")),
            strict=True,
        )
        qkv_BxLxM = dense.product(x_BxLxD, jnp.concatenate(kernels, axis=1))
        mixed_BxLxD = attend(s, qkv_BxLxM, jnp.concatenate(biases), tokens, noise)
        out_DxD, out_bias_D = _weights(s, "out", s.width, s.width)
        return dense.product(mixed_BxLxD, out_DxD), out_bias_D


def attend(
    spec: LayerSpec, qkv_BxLxM: jax.Array, bias_M: jax.Array, tokens: Tokens, noise: Noise | None
) -> jax.Array:
    """The heads' outputs [B, L, D]: the one place where a layer's spec and its tokens become a call of the operation.

    What a position sees follows from `tokens.docs` and the spec, where it stands from `tokens.positions`.
    """
    attention: Callable[..., jax.Array] = functools.partial(
        self_attention, heads=spec.heads, dropout=spec.attention_dropout
    )
    if spec.recompute_attention:
        attention = jax.checkpoint(attention)
    rotation = None
    if spec.rope_theta:
        rotation = Rotation.of(tokens.positions, spec.width // spec.heads, spec.rope_theta)
    mask = Mask(tokens.docs, spec.window, spec.causal)
    return attention(qkv_BxLxM, bias_M, mask, noise=noise, rotation=rotation)


def _weights(spec: LayerSpec, name: str, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
    """A kernel [D, F] of the module that calls, in the dtype of products, and its bias [F]."""
    return Weights(inputs, outputs, spec.init_std, spec.dtype, name=name)()


class FeedForward(nn.Module):
    """Two products with a GELU between."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> Branch:
        """The branch of these operands."""
        s = self.spec
        up_DxF, up_bias_F = _weights(s, "up", s.width, s.ffn)
        down_FxD, down_bias_D = _weights(s, "down", s.ffn, s.width)
        return feed_forward(x_BxLxD, up_DxF, up_bias_F, down_FxD), down_bias_D


class AddNorm(nn.Module):
    """LayerNorm(x + dropout(branch)), with the parameters of an `nn.LayerNorm`."""

    spec: LayerSpec

    @nn.compact
    def __call__(self, stream: Stream, branch: Branch, noise: Noise | None) -> Stream:
        """The stream after the branch."""
        affine, rate = scale_and_shift(self, self.spec.width), self.spec.dropout
        return Stream(*residual_norm(stream.value, *branch, *affine, dropout=rate, noise=noise))


class PostNormBlock(nn.Module):
    """BERT's and ELECTRA's layer: x = LN(x + attention(x)); x = LN(x + feed-forward(x))."""

    spec: LayerSpec

    def setup(self) -> None:
        self.attention, self.attention_norm = Attention(self.spec), AddNorm(self.spec)
        self.feed_forward, self.output_norm = FeedForward(self.spec), AddNorm(self.spec)
        # The parameters of both have paths without a level of their own: layer_0/query, layer_0/up.
        nn.share_scope(self, self.attention)
        nn.share_scope(self, self.feed_forward)

    def __call__(self, stream: Stream, tokens: Tokens, noise: Noise | None) -> Stream:
        """The stream after this layer."""
        dtype = self.spec.dtype
        branch = self.attention(stream.as_operand(dtype), tokens, noise and noise.at(0))
        stream = self.attention_norm(stream, branch, noise and noise.at(1))
        branch = self.feed_forward(stream.as_operand(dtype))
        return self.output_norm(stream, branch, noise and noise.at(2))


class PreNormBlock(nn.Module):
    """ModernBERT's layer (arXiv:2412.13663): x += attention(LN(x)); x += feed-forward(LN(x)), without biases.

    The feed-forward is a GeGLU. Its two first matrices are parameters of their own, as those of queries, keys and
    values are: an optimizer that treats a matrix as a whole then meets what the model multiplies by, and each is split
    over devices by itself. Dropout where transformers' class has it: attention weights and output, GeGLU's product.
    """

    spec: LayerSpec

    @nn.compact
    def __call__(self, stream: Stream, tokens: Tokens, noise: Noise | None) -> Stream:
        """The stream after this layer."""
        dtype, x_BxLxD = self.spec.dtype, stream.value
        read_BxLxD = x_BxLxD.astype(dtype)
        if self.spec.normed:
            read_BxLxD = ScaleNorm(dtype, name="attention_norm")(x_BxLxD)
        x_BxLxD += self._attention(read_BxLxD, tokens, noise).astype(x_BxLxD.dtype)
        read_BxLxD = ScaleNorm(dtype, name="feed_forward_norm")(x_BxLxD)
        return Stream(x_BxLxD + self._feed_forward(read_BxLxD, noise).astype(x_BxLxD.dtype))

    def _attention(self, x_BxLxD: jax.Array, tokens: Tokens, noise: Noise | None) -> jax.Array:
        s = self.spec
        kernels = [self._matrix(name, s.width, s.width) for name in ("query", "key", "value")]
        qkv_BxLxM = dense.product(x_BxLxD, jnp.concatenate(kernels, axis=1))
        no_bias_M = jnp.zeros((3 * s.width,), jnp.float32)
        mixed_BxLxD = attend(s, qkv_BxLxM, no_bias_M, tokens, noise and noise.at(0))
        out_BxLxD = dense.product(mixed_BxLxD, self._matrix("out", s.width, s.width, last=True))
        return noise_ops.dropout(out_BxLxD, s.attention_dropout, noise and noise.at(1))

    def _feed_forward(self, x_BxLxD: jax.Array, noise: Noise | None) -> jax.Array:
        s = self.spec
        up_DxF, gate_DxF = (self._matrix(name, s.width, s.ffn) for name in ("up", "gate"))
        down_FxD = self._matrix("down", s.ffn, s.width, last=True)
        return gated_feed_forward(
            x_BxLxD, up_DxF, gate_DxF, down_FxD, dropout=s.mlp_dropout, noise=noise and noise.at(2)
        )

    def _matrix(self, name: str, inputs: int, outputs: int, last: bool = False) -> jax.Array:
        s = self.spec
        return Matrix(inputs, outputs, s.out_init_std if last else s.init_std, s.dtype, name=name)()


BLOCKS: dict[str, type[nn.Module]] = {"post_norm": PostNormBlock, "pre_norm": PreNormBlock}
