"""The vocabulary head on all logits at once: for vocabularies of one tile, and what the tiles are tested against."""

import jax
import jax.numpy as jnp

from electra_jax.ops.vocabulary.samplers import SAMPLERS, pick
from electra_jax.ops.vocabulary.slots import HeadOptions, Inputs, PerSlot, sampling_logits


def run(inputs: Inputs, options: HeadOptions) -> PerSlot:
    """Loss, entropy, likeliest id, sample and its log-probability of every slot; only the loss has a gradient."""
    hidden_BxKxE, table_VxE, bias_V, targets_BxK, noise = inputs
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


def supports(inputs: Inputs, options: HeadOptions) -> str:
    """The reason why it is not to be taken; empty where the vocabulary is one tile."""
    return "" if inputs.table_VxE.shape[0] <= options.tile else "more ids than a tile has"
