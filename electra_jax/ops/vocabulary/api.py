"""Masked-LM loss and Gumbel-max samples at the chosen positions: the seam, and which implementations there are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from electra_jax.ops.kernel import Implementation, Operation, in_module
from electra_jax.ops.noise import Noise
from electra_jax.ops.vocabulary import tiles, whole
from electra_jax.ops.vocabulary.slots import ROWS, HeadOptions, Inputs, PerSlot

TILE = 2048  # ids of a tile; a vocabulary that is no larger is taken whole

_HEAD = Operation(
    "vocabulary_head",
    Implementation(name="plain", run=whole.run, supports=whole.supports),
    in_module("vocabulary.tpu", runs_on="tpu"),
    in_module("vocabulary.hopper", runs_on="hopper"),
    Implementation(name="tiles", run=tiles.run),
    rows=ROWS,
)


class HeadOutput(NamedTuple):
    """Weighted sums over the chosen positions (float32 scalars) and the samples [B, K]."""

    loss: jax.Array
    correct: jax.Array  # the most likely id is the true one
    sampled_correct: jax.Array  # the sampled id is the true one
    entropy: jax.Array  # of the generator's distribution, nats
    sampled_BxK: jax.Array  # int32
    # Log-probability of the sample under the sampling distribution, float32: see PerSlot.log_q.
    log_q_BxK: jax.Array


def vocabulary_slots(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    *,
    vocab_size: int,
    noise: Noise,
    temperature: float = 1.0,
    disallow_correct: bool = False,
    sampler: str = "gumbel",
    tile: int | None = None,
) -> PerSlot:
    """Of every position: softmax cross-entropy against the target, and a sample, argmax of logits / T + Gumbel noise.

    The product runs in the hidden states' dtype and accumulates in float32; everything after it is float32. Ids from
    `vocab_size` on are padding of the table and can be neither learned nor drawn. The loss alone has a gradient.
    `sampler` names one of samplers.SAMPLERS: other noise, the same distribution.
    `tile` (default TILE) is how many ids are computed at once; it changes nothing but rounding.
    """
    options = HeadOptions(
        vocab_size=vocab_size,
        temperature=temperature,
        disallow_correct=disallow_correct,
        tile=TILE if tile is None else tile,
        sampler=sampler,
    )
    slot: PerSlot = _HEAD(
        Inputs(hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise), options=options
    )
    return slot


def vocabulary_head(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    weights_BxK: jax.Array,
    **options: Any,
) -> HeadOutput:
    """The sums of `vocabulary_slots`, which has the options, over positions by weight, and the samples."""
    slot = vocabulary_slots(hidden_BxKxE, table_VxE, bias_V, targets_BxK, **options)

    def total(x_BxK: jax.Array) -> jax.Array:
        return jnp.sum(x_BxK.astype(jnp.float32) * weights_BxK)

    return HeadOutput(
        loss=total(slot.loss),
        correct=total(slot.likeliest == targets_BxK),
        sampled_correct=total(slot.sampled == targets_BxK),
        entropy=total(jax.lax.stop_gradient(slot.entropy)),
        sampled_BxK=slot.sampled,
        log_q_BxK=jax.lax.stop_gradient(slot.log_q),
    )
