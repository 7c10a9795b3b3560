"""Useful FLOPs of the parts of a network, counted from dimensions: what an objective adds its own up from.

Only matrix multiplications that the model's definition needs are counted, 2 x m x n x k each. Recomputation, padding of
the vocabulary, the optimizer, softmax, LayerNorm, lookups and sampling are not counted: an implementation that does
more work than needed must not look faster. Forward, with L positions, D width, F feed-forward width, E embedding width,
V vocabulary:

    encoder, a row          2 L E D (projection, when E != D) + layers x (8 L D^2 + 4 L D F + 4 P D)
                              query, key, value and output   8 L D^2     scores and their product with values   4 P D
                              6 L D F where the feed-forward has a gate
    vocabulary, a position  2 D E + 2 E V
    detection, a position   2 D^2 + 2 D

P are the pairs of a query and a key that it sees: L^2, or those at most a window apart.

A row counts as full: padding is work the model is given, as in every published figure.
"""

from electra_jax.model.backbone import EncoderSpec

# Forward and backward: the backward pass is a product for the input's gradient and one for the weight's.
PASSES = 3.0


def encoder(spec: EncoderSpec, length: int) -> float:
    """Forward FLOPs of an encoder over one row of `length` positions."""
    width = spec.width
    layers = sum(
        length * (8 * width**2 + (4 + 2 * (layer.block == "pre_norm")) * width * layer.ffn)
        + 4 * pairs(length, layer.window) * width
        for layer in spec.stack
    )
    project = 2 * spec.embedding * width if spec.embedding != width else 0
    return float(length * project + layers)


def pairs(length: int, window: int | None) -> int:
    """How many pairs of a query and a key a row has, `window` tokens apart at most."""
    if window is None or window >= length:
        return length**2
    return length * (2 * window + 1) - window * (window + 1)


def vocabulary_head(width: int, embedding: int, vocab_size: int) -> float:
    """Forward FLOPs of a transform and a word from the vocabulary, at one position."""
    return float(2 * width * embedding + 2 * embedding * vocab_size)


def detection_head(width: int) -> float:
    """Forward FLOPs of one logit, at one position."""
    return float(2 * width**2 + 2 * width)
