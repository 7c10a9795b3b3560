"""Useful model FLOPs of a train step, counted from dimensions.

Only matrix multiplications that the model's definition needs are counted, 2 x m x n x k each; the
backward pass is twice the forward (one product for the input's gradient, one for the weight's).
Recomputation, padding of the vocabulary, the optimizer, softmax, LayerNorm, lookups and sampling are
not counted: an implementation that does more work than needed must not look faster. Per row, with L
positions, K predictions, D width, F feed-forward width, E embedding width, V vocabulary:

    encoder      2 L E D (projection, when E != D) + layers x (8 L D^2 + 4 L D F + 4 L^2 D)
                   query, key, value and output   8 L D^2      scores and their product with values   4 L^2 D
    MLM head     K x (2 D E + 2 E V)
    RTD head     L x (2 D^2 + 2 D)

A row counts as full: padding is work the model is given, as in every published figure.
"""

from electra_jax.learn.hardware import matmul_peak, peak, utilisation
from electra_jax.model.backbone import EncoderSpec
from electra_jax.model.electra import Dimensions
from electra_jax.spec import check_choice

__all__ = ["forward_flops_per_row", "matmul_peak", "peak", "train_flops_per_step", "utilisation"]

OBJECTIVES = ("electra", "uniform", "mlm")


def train_flops_per_step(
    dims: Dimensions, batch: int, seq_len: int, predictions: float, objective: str = "electra"
) -> float:
    """Forward and backward FLOPs of one step over `batch` rows, `predictions` masked positions in each."""
    return 3.0 * batch * forward_flops_per_row(dims, seq_len, predictions, objective)


def forward_flops_per_row(
    dims: Dimensions, seq_len: int, predictions: float, objective: str = "electra"
) -> float:
    """Forward FLOPs of one row.

    `electra` runs both networks; `uniform` (replacements not from a generator) the discriminator;
    `mlm` the full-size encoder with the generator's head.
    """
    check_choice("objective", objective, OBJECTIVES)
    if objective == "mlm":
        embedding = dims.spec.embedding
        return _encoder(dims.discriminator, seq_len) + predictions * _mlm_head(
            dims.discriminator.width, embedding, dims.vocab_size
        )
    total = _encoder(dims.discriminator, seq_len) + seq_len * _rtd_head(dims.spec.width)
    if objective == "electra":
        head = _mlm_head(dims.generator_width, dims.generator_embedding, dims.vocab_size)
        total += _encoder(dims.generator, seq_len) + predictions * head
    return total


def _encoder(spec: EncoderSpec, length: int) -> float:
    width = spec.width
    layers = sum(8 * width**2 + 4 * width * layer.ffn + 4 * length * width for layer in spec.stack)
    project = 2 * spec.embedding * width if spec.embedding != width else 0
    return float(length * (project + layers))


def _mlm_head(width: int, embedding: int, vocab_size: int) -> float:
    return float(2 * width * embedding + 2 * embedding * vocab_size)


def _rtd_head(width: int) -> float:
    return float(2 * width**2 + 2 * width)
