"""What the heads of tasks are made of: their numbers, a linear layer, and the two heads that kinds share."""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax

from electra_jax.model.heads import PredictionHead, by_width
from electra_jax.model.options import ELECTRA, MODERN
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.spec import UserError, check_choice

Outputs = dict[str, jax.Array]


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One task's head; `outputs` is the number of classes (1 for regress and choice, 2 for qa)."""

    kind: str
    style: str  # hf | original
    outputs: int
    dropout: float
    init_std: float
    dtype: str  # of the hidden layer's matmul; logits are float32
    joint: bool = True  # original qa: the end is predicted given the start
    answerable: bool = True  # original qa: a classifier says whether there is an answer
    answerable_weight: float = 0.5
    beam: int = 20  # original joint qa: starts, and ends for each of them
    family: str = ELECTRA  # of the encoder below: transformers has another head on each

    def __post_init__(self) -> None:
        check_choice("head.style", self.style, ("hf", "original"))
        if not 0 <= self.dropout < 1:
            raise UserError(f"head.dropout={self.dropout} must be in [0, 1)")
        if self.beam < 1:
            raise UserError(f"head.beam={self.beam} must be at least 1")


def dense(spec: HeadSpec, features: int, name: str, last: bool = False) -> nn.Dense:
    """transformers draws every linear layer of a head from a normal distribution; the original left
    its heads on TensorFlow's default, glorot uniform."""
    init = (
        nn.initializers.normal(spec.init_std)
        if spec.style == "hf"
        else nn.initializers.glorot_uniform()
    )
    return nn.Dense(features, dtype="float32" if last else spec.dtype, kernel_init=init, name=name)


def chosen(
    spec: HeadSpec,
    hf: Callable[[HeadSpec], nn.Module],
    original: Callable[[HeadSpec], nn.Module],
    modern: Callable[[HeadSpec], nn.Module],
) -> nn.Module:
    """The head of this style: transformers' on an ELECTRA, the original's on any, transformers' on a ModernBERT."""
    if spec.style != "hf":
        return original(spec)
    return modern(spec) if spec.family == MODERN else hf(spec)


class FirstToken(nn.Module):
    """The original's classification and regression: [CLS], dropout, linear."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = noise_ops.dropout(hidden_BxLxD[:, 0], s.dropout, noise and noise.at(0))
        return {"logits": dense(s, s.outputs, "out", last=True)(x_BxD)}


class Linear(nn.Module):
    """A linear layer on every token; transformers puts dropout before it, the original does not."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        rate = s.dropout if s.style == "hf" else 0.0
        x_BxLxD = noise_ops.dropout(hidden_BxLxD, rate, noise and noise.at(0))
        return {"logits": dense(s, s.outputs, "out", last=True)(x_BxLxD)}


class Predicted(nn.Module):
    """ModernBERT's head of every task: dense, GELU, norm, dropout, linear; its matrix and norm have no biases."""

    spec: HeadSpec
    first: bool  # of the first token alone

    def setup(self) -> None:
        s = self.spec
        self.head = PredictionHead(s.init_std, s.dtype)
        nn.share_scope(self, self.head)
        self.out = nn.Dense(s.outputs, dtype="float32", kernel_init=by_width)

    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        """Logits [B, C] of the first token, or [B, L, C]."""
        x = self.head(hidden_BxLxD[:, :1] if self.first else hidden_BxLxD)
        logits = self.out(noise_ops.dropout(x, self.spec.dropout, noise and noise.at(0)))
        return {"logits": logits[:, 0] if self.first else logits}


def of_first(spec: HeadSpec) -> nn.Module:
    """ModernBERT's head on [CLS]."""
    return Predicted(spec, first=True)


def of_tokens(spec: HeadSpec) -> nn.Module:
    """ModernBERT's head on every token."""
    return Predicted(spec, first=False)
