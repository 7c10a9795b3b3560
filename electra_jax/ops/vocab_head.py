"""The vocabulary head: masked-LM loss and Gumbel-max samples at the chosen positions; logits never leave it."""

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from electra_jax.ops import target
from electra_jax.ops.noise import Noise
from electra_jax.ops.samplers import SAMPLERS, pick
from electra_jax.ops.vocab_tiles import HeadOptions, PerSlot, sampling_logits, tiled_head

TILE = 2048  # ids of a tile; a vocabulary that is no larger is taken whole


class HeadOutput(NamedTuple):
    """Weighted sums over the chosen positions (float32 scalars) and the samples."""

    loss: jax.Array
    correct: jax.Array  # the most likely id is the true one
    sampled_correct: jax.Array  # the sampled id is the true one
    entropy: jax.Array  # of the generator's distribution, nats
    sampled_BxK: jax.Array  # int32
    log_q_BxK: jax.Array  # log-probability of the sample under the sampling distribution, float32


def vocabulary_head(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    weights_BxK: jax.Array,
    *,
    vocab_size: int,
    noise: Noise,
    temperature: float = 1.0,
    disallow_correct: bool = False,
    sampler: str = "gumbel",
    tile: int | None = None,
) -> HeadOutput:
    """Softmax cross-entropy against the targets and a sample per position, argmax of logits / T + Gumbel noise.

    The product runs in the hidden states' dtype and accumulates in float32; everything after it is float32. Ids from
    `vocab_size` on are padding of the table and can be neither learned nor drawn. No gradient flows through samples.
    `sampler` names one of samplers.SAMPLERS: other noise, the same distribution.
    `tile` (default TILE) is how many ids are computed at once; it changes nothing but rounding.
    """
    size = TILE if tile is None else tile
    options = HeadOptions(vocab_size, temperature, disallow_correct, size, sampler)
    head = _on_each_device if options.tile < table_VxE.shape[0] else whole_head
    slot = head(hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise, options)

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


def _on_each_device(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    noise: Noise,
    options: HeadOptions,
) -> PerSlot:
    """The head a tile at a time or by a platform's kernels, on every device of a mesh for its own rows."""
    arrays = (hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise)
    by_row = (True, False, False, True, True)

    def tiled(*arrays: Any, options: HeadOptions) -> PerSlot:
        head = functools.partial(tiled_head, options=options)
        if jax.sharding.get_abstract_mesh().size <= 1:
            return head(*arrays)
        # Left to the partitioner, the devices would add up the table's gradient after every tile, in the loop.
        return target.on_rows(head, arrays, by_row)

    kernels = _kernels()
    if kernels is None:
        return tiled(*arrays, options=options)
    _, slots, width = hidden_BxKxE.shape
    return target.by_kernel(
        "vocabulary head",
        kernels.kernel_head,
        tiled,
        lambda batch: kernels.obstacle((batch, slots, width), hidden_BxKxE.dtype, options.sampler),
        arrays,
        by_row,
        options=options,
    )


def _kernels() -> ModuleType | None:
    """The kernels of the devices that the program being traced will run on."""
    if target.platform() == "tpu":
        from electra_jax.ops.tpu import vocabulary as on_tpu

        return on_tpu
    if target.on_hopper():
        from electra_jax.ops.gpu import vocabulary as on_hopper

        return on_hopper
    return None


def whole_head(
    hidden_BxKxE: jax.Array,
    table_VxE: jax.Array,
    bias_V: jax.Array,
    targets_BxK: jax.Array,
    noise: Noise,
    options: HeadOptions,
) -> PerSlot:
    """The head on all logits at once: for vocabularies of one tile, and what the tiles are tested against."""
    logits_BxKxV = jnp.einsum(
        "bke,ve->bkv",
        hidden_BxKxE,
        table_VxE.astype(hidden_BxKxE.dtype),
        preferred_element_type=jnp.float32,
    )
    logits_BxKxV += bias_V
    ids_V = jnp.arange(table_VxE.shape[0])
    if options.vocab_size < table_VxE.shape[0]:
        logits_BxKxV = jnp.where(ids_V < options.vocab_size, logits_BxKxV, -jnp.inf)
    log_norm_BxK = jax.nn.logsumexp(logits_BxKxV, axis=-1)
    loss_BxK = log_norm_BxK - pick(logits_BxKxV, targets_BxK)

    frozen_BxKxV = jax.lax.stop_gradient(logits_BxKxV)
    log_p_BxKxV = frozen_BxKxV - jax.lax.stop_gradient(log_norm_BxK)[..., None]
    draw_BxKxV = sampling_logits(frozen_BxKxV, ids_V, targets_BxK, options)
    start = SAMPLERS[options.sampler].start(targets_BxK)
    sampler = start.add(draw_BxKxV, 0, jnp.max(draw_BxKxV, axis=-1), noise)
    sampled_BxK, logit_BxK = sampler.sample(noise)
    return PerSlot(
        loss=loss_BxK,
        entropy=-jnp.sum(jnp.exp(log_p_BxKxV) * jnp.maximum(log_p_BxKxV, -1e9), axis=-1),
        likeliest=jnp.argmax(frozen_BxKxV, axis=-1).astype(jnp.int32),
        sampled=sampled_BxK,
        log_q=logit_BxK - jax.nn.logsumexp(draw_BxKxV, axis=-1),
    )
