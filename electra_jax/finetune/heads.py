"""Task heads on an encoder's hidden states: those of transformers, and those of the original ELECTRA."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.gelu import gelu
from electra_jax.ops.noise import Noise
from electra_jax.spec import UserError, check_choice

KINDS = ("classify", "regress", "tag", "qa", "choice")
HIDDEN_QA = 512  # width of the original's two hidden layers in question answering (qa_tasks.py)
EXCLUDED = -1e9  # logit of a position that cannot be chosen
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

    def __post_init__(self) -> None:
        check_choice("head.kind", self.kind, KINDS)
        check_choice("head.style", self.style, ("hf", "original"))
        if not 0 <= self.dropout < 1:
            raise UserError(f"head.dropout={self.dropout} must be in [0, 1)")
        if self.beam < 1:
            raise UserError(f"head.beam={self.beam} must be at least 1")


def make(spec: HeadSpec) -> nn.Module:
    """The head as a module: (hidden [B, L, D], noise, batch, training) -> outputs by name.

    classify, regress, choice: "logits" [B, C]. tag: "logits" [B, L, C]. qa: "start" and "end"
    [B, L]; with the original's answerability classifier also "null" [B], which is positive where a
    question has no answer; with its joint head in prediction "start_top" [B, K], "start_score"
    [B, K], "end_top" [B, K, K] and "end_score" [B, K, K], log-probabilities, in place of "end".
    """
    if spec.style == "hf":
        return {
            "classify": Classification,
            "regress": Classification,
            "tag": Linear,
            "qa": Span,
            "choice": Summary,
        }[spec.kind](spec)
    return {"tag": Linear, "qa": JointSpan}.get(spec.kind, FirstToken)(spec)


def _dense(spec: HeadSpec, features: int, name: str, last: bool = False) -> nn.Dense:
    """transformers draws every linear layer of a head from a normal distribution; the original left
    its heads on TensorFlow's default, glorot uniform."""
    init = (
        nn.initializers.normal(spec.init_std)
        if spec.style == "hf"
        else nn.initializers.glorot_uniform()
    )
    return nn.Dense(features, dtype="float32" if last else spec.dtype, kernel_init=init, name=name)


class Classification(nn.Module):
    """`ElectraClassificationHead`: [CLS], dropout, dense, GELU, dropout, linear."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = noise_ops.dropout(hidden_BxLxD[:, 0], s.dropout, noise and noise.at(0))
        x_BxD = gelu(_dense(s, x_BxD.shape[-1], "dense")(x_BxD))
        x_BxD = noise_ops.dropout(x_BxD, s.dropout, noise and noise.at(1))
        return {"logits": _dense(s, s.outputs, "out", last=True)(x_BxD)}


class Summary(nn.Module):
    """`ElectraForMultipleChoice`: [CLS], dense, GELU, dropout, one logit a choice."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = gelu(_dense(s, hidden_BxLxD.shape[-1], "dense")(hidden_BxLxD[:, 0]))
        x_BxD = noise_ops.dropout(x_BxD, s.dropout, noise and noise.at(0))
        return {"logits": _dense(s, 1, "out", last=True)(x_BxD)}


class FirstToken(nn.Module):
    """The original's classification and regression: [CLS], dropout, linear."""

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        x_BxD = noise_ops.dropout(hidden_BxLxD[:, 0], s.dropout, noise and noise.at(0))
        return {"logits": _dense(s, s.outputs, "out", last=True)(x_BxD)}


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
        return {"logits": _dense(s, s.outputs, "out", last=True)(x_BxLxD)}


class Span(nn.Module):
    """`ElectraForQuestionAnswering`: a linear layer gives each token a start and an end logit.

    Padding is excluded, so that the loss does not depend on how long a batch was made.
    """

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        logits_BxLx2 = _dense(self.spec, 2, "out", last=True)(hidden_BxLxD)
        present_BxL = batch["docs"] > 0
        return {
            name: jnp.where(present_BxL, logits_BxLx2[..., i], EXCLUDED)
            for i, name in enumerate(("start", "end"))
        }


class JointSpan(nn.Module):
    """The original's question answering (qa_tasks.py), by default with the end given the start.

    Only tokens of the context and position 0 can be chosen. In training the end is predicted from
    the true start; in prediction from each of the `beam` best starts.
    """

    spec: HeadSpec

    @nn.compact
    def __call__(
        self, hidden_BxLxD: jax.Array, noise: Noise | None, batch: Outputs, training: bool
    ) -> Outputs:
        s = self.spec
        allowed_BxL = ((batch["types"] == 1) & (batch["docs"] > 0)).at[:, 0].set(True)
        start_BxL = _dense(s, 1, "start", last=True)(hidden_BxLxD)[..., 0]
        start_BxL = jnp.where(allowed_BxL, start_BxL, EXCLUDED)
        out = {"start": start_BxL}
        if s.answerable:
            share_BxL = jax.nn.softmax(start_BxL, axis=-1).astype(hidden_BxLxD.dtype)
            mean_BxD = jnp.einsum("bl,bld->bd", share_BxL, hidden_BxLxD)
            both_Bx2D = jnp.concatenate([hidden_BxLxD[:, 0], mean_BxD], axis=-1)
            inner_BxJ = gelu(_dense(s, HIDDEN_QA, "null_hidden")(both_Bx2D))
            out["null"] = _dense(s, 1, "null", last=True)(inner_BxJ)[..., 0]
        end = _dense(s, 1, "end", last=True)
        if not s.joint:
            return out | {"end": jnp.where(allowed_BxL, end(hidden_BxLxD)[..., 0], EXCLUDED)}
        # A layer over (start token, token) in two halves: each is applied once, not once a pair.
        of_start = nn.Dense(HIDDEN_QA, dtype=s.dtype, kernel_init=_half_glorot, name="hidden_start")
        of_token_BxLxJ = nn.Dense(
            HIDDEN_QA,
            dtype=s.dtype,
            use_bias=False,
            kernel_init=_half_glorot,
            name="hidden_token",
        )(hidden_BxLxD)

        def end_given(start_B: jax.Array) -> jax.Array:
            token_BxD = jnp.take_along_axis(hidden_BxLxD, start_B[:, None, None], axis=1)[:, 0]
            inner_BxLxJ = gelu(of_start(token_BxD)[:, None] + of_token_BxLxJ)
            return jnp.where(allowed_BxL, end(inner_BxLxJ)[..., 0], EXCLUDED)

        if training:
            return out | {"end": end_given(batch["start"])}
        return out | _beam(start_BxL, end_given, min(s.beam, start_BxL.shape[1]))


def _half_glorot(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Glorot uniform for one half of a kernel that has twice as many rows."""
    return nn.initializers.glorot_uniform()(key, (2 * shape[0], shape[1]), dtype)[: shape[0]]


def _beam(start_BxL: jax.Array, end_given: Callable[[jax.Array], jax.Array], beam: int) -> Outputs:
    """The best starts, and for each of them the best ends, with their log-probabilities."""
    score_BxK, start_BxK = jax.lax.top_k(jax.nn.log_softmax(start_BxL, axis=-1), beam)
    scores, ends = [], []
    # A start at a time: all of them together would need beam times the memory.
    for k in range(beam):
        logp_BxL = jax.nn.log_softmax(end_given(start_BxK[:, k]), axis=-1)
        best_BxK, at_BxK = jax.lax.top_k(logp_BxL, beam)
        scores.append(best_BxK)
        ends.append(at_BxK)
    return {
        "start_top": start_BxK,
        "start_score": score_BxK,
        "end_top": jnp.stack(ends, axis=1),
        "end_score": jnp.stack(scores, axis=1),
    }
