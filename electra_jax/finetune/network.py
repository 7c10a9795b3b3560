"""An encoder with the heads of one or more tasks on it."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from electra_jax.finetune.heads import HeadSpec, Outputs
from electra_jax.finetune.kinds import table as kinds
from electra_jax.model import initial
from electra_jax.model.backbone import Backbone, Encoder
from electra_jax.model.electra import Dimensions, Params
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise

TOKENS = ("ids", "types", "docs")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """All that fixes the parameters: the encoder's dimensions and a head a task."""

    dims: Dimensions
    heads: tuple[tuple[str, HeadSpec], ...]  # task name -> head, in order

    def head(self, task: str) -> HeadSpec:
        """The head of a task."""
        return dict(self.heads)[task]

    def inputs(self, task: str) -> tuple[str, ...]:
        """The arrays of a batch that a prediction of a task takes."""
        return (*TOKENS, *kinds.get(self.head(task).kind).inputs)


class Network(nn.Module):
    """Parameters {embeddings, encoder, heads_<task>}."""

    spec: NetworkSpec

    def setup(self) -> None:
        dims = self.spec.dims
        self.embeddings = dims.family.embeddings(dims.embeddings(dims.spec.embedding))
        self.encoder = Encoder(dims.discriminator)
        self.heads = {name: kinds.get(spec.kind).head(spec) for name, spec in self.spec.heads}

    def __call__(
        self, task: str, batch: Outputs, noise: Noise | None = None, training: bool = False
    ) -> Outputs:
        """The outputs of a task's head; `batch` holds ids, types, docs [B, L] (docs 0: padding)."""
        hidden_BxLxD = Backbone(self.embeddings, self.encoder)(Tokens.of(batch), noise)
        site = 1 + self.spec.dims.spec.layers
        return self.heads[task](hidden_BxLxD, noise and noise.at(site), batch, training)

    def touch(self, batch: Outputs) -> None:
        """Uses every parameter once, for `init`."""
        for name, _ in self.spec.heads:
            self(name, batch, training=True)


def init(spec: NetworkSpec, key: jax.Array) -> Params:
    """Fresh parameters, float32."""
    zeros_1x1 = jnp.zeros((1, 1), jnp.int32)
    batch = dict.fromkeys(TOKENS, zeros_1x1)
    for _, head in spec.heads:
        kind = kinds.get(head.kind)
        batch |= dict.fromkeys(kind.taught, zeros_1x1[0])
        batch |= {name: jnp.zeros((1, *shape), jnp.int32) for name, shape in kind.inputs.items()}
    return initial.fresh(Network(spec), key, batch, method="touch")


def apply(
    spec: NetworkSpec,
    params: Params,
    task: str,
    batch: Outputs,
    noise: Noise | None = None,
    training: bool = False,
) -> Outputs:
    """The head's outputs for a batch. `training`: the batch holds labels, and the head may use them.

    The rows of a multiple-choice batch are [B, C, L], and its logits come back as [B, C].
    """
    choices = batch["ids"].shape[1] if batch["ids"].ndim == 3 else 0
    if choices:
        rows = {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in TOKENS}
        batch = batch | rows
    out = Network(spec).apply({"params": params}, task, batch, noise, training)
    if choices:
        out = {"logits": out["logits"].reshape(-1, choices)}
    return out


def dropout_noise(key: jax.Array, batch: Outputs, at_B: jax.Array) -> Noise:
    """The noise of rows that stand at these places of their batch: a key a row, a choice being one of its own."""
    choices = batch["ids"].shape[1] if batch["ids"].ndim == 3 else 1
    return noise_ops.for_rows(key, (at_B[:, None] * choices + jnp.arange(choices)).reshape(-1))
