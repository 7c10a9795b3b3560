"""The vocabulary head: masked-LM loss and samples at the chosen positions; logits never leave it."""

from electra_jax.ops.vocabulary.api import HeadOutput, vocabulary_head, vocabulary_slots
from electra_jax.ops.vocabulary.samplers import SAMPLERS

__all__ = ["SAMPLERS", "HeadOutput", "vocabulary_head", "vocabulary_slots"]
