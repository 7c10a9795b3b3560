"""Forward passes of a generator and a discriminator: what the objectives on such a pair are made of.

`generate` -> `replace` -> `detect`; `forward` is the last two with the sums behind all metrics. They take the
parameters of `Electra`, and decide nothing about weights or about what is learned.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from electra_jax.learn.learner import Batch, Context, Sums
from electra_jax.learn.parts import Part
from electra_jax.model import flops, initial, sharing
from electra_jax.model.electra import Dimensions, Electra, Params
from electra_jax.model.tokens import Tokens
from electra_jax.objective import corrupt, losses
from electra_jax.objective.protocol import PerToken, dropout
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.noise import Noise
from electra_jax.ops.vocabulary import HeadOutput, vocabulary_head
from electra_jax.spec import UserError

# Folded into the dropout key: the two networks drop independently.
GENERATOR, DISCRIMINATOR = 0, 1
GENERATORS = "^generator"  # of the paths of what the discriminator has no part in


def init(dims: Dimensions, key: jax.Array) -> Params:
    """Fresh parameters of both networks, float32."""
    params = initial.fresh(Electra(dims), key)
    return sharing.started(params) if is_disentangled(dims) else params


def is_disentangled(dims: Dimensions) -> bool:
    """Whether no parameter is reached by the gradients of both losses through an embedding that both networks use."""
    return dims.spec.tying == "gdes"


def parts(whole: Part, discriminator: Part | None = None) -> tuple[Part, Part]:
    """The generator, its embeddings included, and the discriminator: each descended and clipped by itself.

    `discriminator`: how that is descended, where it is not as the generator is.
    """
    second = discriminator or whole
    return (
        dataclasses.replace(whole, name="generator", pattern=GENERATORS),
        dataclasses.replace(second, name="discriminator", pattern=""),
    )


def check_tying(dims: Dimensions, objective: str, allowed: Sequence[str]) -> None:
    """Raises UserError where the networks of this objective are not tied in one of these ways."""
    if dims.spec.tying not in allowed:
        raise UserError(
            f"model.tying={dims.spec.tying} is not for objective.name={objective}; set it to {' or '.join(allowed)}"
        )


def generator_flops(dims: Dimensions, length: int, slots: int) -> float:
    """Useful forward FLOPs of the generator over a row, and of the vocabulary at its slots."""
    word = flops.vocabulary_head(dims.generator_width, dims.generator_embedding, dims.vocab_size)
    return flops.encoder(dims.generator, length) + slots * word


def generate(
    dims: Dimensions,
    context: Context,
    noise: Noise | None,
    cooling: jax.Array | None = None,
    **sampling: Any,
) -> HeadOutput:
    """The generator's sums over the chosen positions of the masked text, and a sample at each.

    The batch has `chosen`, `weights` [B, K] and `masked` [B, L]. `noise` is that of dropout. `sampling` are
    `temperature`, `disallow_correct` and `sampler` of the vocabulary head, which are fixed when a step is compiled;
    `cooling` is 1 / a temperature that may change from step to step, under which the sums are taken, too.
    """
    params, batch = context.params, context.batch
    hidden_BxKxE, table_VxE, bias_V = Electra(dims).apply(
        {"params": params},
        Tokens.of(batch)._replace(ids=batch["masked"]),
        batch["chosen"],
        noise,
        method=Electra.generate,
    )
    if cooling is not None:
        # Logits are hidden @ table + bias: the head need not know of it.
        hidden_BxKxE = (hidden_BxKxE * cooling).astype(hidden_BxKxE.dtype)
        bias_V = bias_V * cooling
    return vocabulary_head(
        hidden_BxKxE,
        table_VxE,
        bias_V,
        targets(batch),
        batch["weights"],
        vocab_size=dims.vocab_size,
        noise=sample_noise(context),
        **sampling,
    )


def targets(batch: Batch) -> jax.Array:
    """The true ids at the chosen positions, int32 [B, K]."""
    return jnp.take_along_axis(batch["ids"], batch["chosen"], axis=1)


def sample_noise(context: Context) -> Noise:
    """The noise of samples in these rows."""
    return noise_ops.for_rows(context.keys["sample"], context.batch["rows"])


def replace(batch: Batch, sampled_BxK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(ids with the samples in them, int32 [B, L]; where they differ from the text, float32 [B, L] of 0 and 1).

    The samples go into the unmasked text: [MASK] is there only if the generator drew it. A correct guess counts as
    original.
    """
    fake_BxL = corrupt.splice(batch["ids"], batch["chosen"], batch["weights"], sampled_BxK)
    return fake_BxL, (fake_BxL != batch["ids"]).astype(jnp.float32)


def detect(
    dims: Dimensions, params: Params, batch: Batch, ids_BxL: jax.Array, noise: Noise | None = None
) -> jax.Array:
    """The discriminator's logits for these ids in place of the batch's, float32 [B, L]; above 0: looks replaced."""
    if is_disentangled(dims):
        params = sharing.summed(params)
    return Electra(dims).apply(
        {"params": params},
        Tokens.of(batch)._replace(ids=ids_BxL),
        noise,
        method=Electra.discriminate,
    )


def forward(dims: Dimensions, context: Context, generated: HeadOutput) -> tuple[Sums, PerToken]:
    """(metric sums of both networks, arrays by token for ranks): the discriminator on what was generated.

    With dropout where the context has a key of it.
    """
    batch = context.batch
    fake_BxL, replaced_BxL = replace(batch, generated.sampled_BxK)
    noise = dropout(context, DISCRIMINATOR)
    logit_BxL = detect(dims, context.params, batch, fake_BxL, noise)
    valid_BxL = batch["docs"] > 0
    sums = generator_sums(batch, generated) | losses.detection_sums(
        logit_BxL, replaced_BxL, valid_BxL
    )
    tokens = {"ids": fake_BxL, "score": logit_BxL, "label": replaced_BxL, "valid": valid_BxL}
    return sums, tokens


def generator_sums(batch: Batch, generated: HeadOutput) -> Sums:
    """The sums behind `losses.generator_metrics`."""
    return {
        "mlm_loss": generated.loss,
        "mlm_correct": generated.correct,
        "sampled_correct": generated.sampled_correct,
        "entropy": generated.entropy,
        "masked": jnp.sum(batch["weights"]),
    }
