"""What border tables are made of: the numbers of a model, one tensor on both sides, and a family's names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from electra_jax.model.options import ELECTRA

# What happens to a tensor in between: nothing, [in, out] becomes [out, in], the padding of the vocabulary goes, a
# logit becomes those of two classes.
SAME, TRANSPOSED, VOCABULARY, TWO_CLASSES = "same", "transposed", "vocabulary", "two classes"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that fix one exported model: an encoder on an embedding of its own width."""

    vocab: int
    embedding: int
    width: int
    heads: int
    ffn: int
    layers: int
    positions: int
    types: int
    family: str = ELECTRA
    # Of the modern family, as in `EncoderOptions`:
    local_attention: int = 0
    global_attn_every_n_layers: int = 0
    global_rope_theta: float = 0.0
    local_rope_theta: float = 0.0


@dataclass(frozen=True)
class Options:
    """What a config.json says besides dimensions: dropouts, initial scale, and our own notes."""

    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    notes: Mapping[str, Any] | None = None
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0


@dataclass(frozen=True)
class Entry:
    """A tensor on both sides: our path, their name, their shape, and what happens in between.

    With `parts` it is one of so many equal stretches of rows of theirs, the one that `part` counts from 0; `shape` is
    that of the stretch.
    """

    ours: str
    theirs: str
    shape: tuple[int, ...]
    transform: str = SAME
    part: int = 0
    parts: int = 1

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of their whole tensor."""
        return (self.parts * self.shape[0], *self.shape[1:])

    def to_theirs(self, value: np.ndarray) -> np.ndarray:
        """Our array as theirs, or as its stretch of theirs."""
        if self.transform == TRANSPOSED:
            value = value.T
        elif self.transform == VOCABULARY:
            value = value[: self.shape[0]]
        elif self.transform == TWO_CLASSES:  # whose logits differ by ours
            value = np.stack([np.zeros_like(value[..., 0]), value[..., 0]])
        return np.ascontiguousarray(value, np.float32)

    def to_ours(self, value: np.ndarray, padded_vocab: int) -> np.ndarray:
        """Their whole array as ours, float32; zero rows fill the vocabulary up to `padded_vocab`."""
        value = np.asarray(value, np.float32)
        if self.parts > 1:
            value = value[self.part * self.shape[0] : (self.part + 1) * self.shape[0]]
        if self.transform == TRANSPOSED:
            value = value.T
        elif self.transform == VOCABULARY:
            rows = padded_vocab - value.shape[0]
            value = np.pad(value, [(0, rows)] + [(0, 0)] * (value.ndim - 1))
        elif self.transform == TWO_CLASSES:
            value = (value[1] - value[0])[..., None]
        return np.ascontiguousarray(value)

    def our_shape(self, padded_vocab: int) -> tuple[int, ...]:
        """The shape of our array, given the padded vocabulary."""
        if self.transform == TRANSPOSED:
            return self.shape[::-1]
        if self.transform == TWO_CLASSES:
            return (*self.shape[1:], 1)
        return (padded_vocab, *self.shape[1:]) if self.transform == VOCABULARY else self.shape


class Border(NamedTuple):
    """How transformers names a family: its classes and its tensors."""

    model_type: str
    classes: Mapping[
        str, str
    ]  # the model's role, by the class that ELECTRA has for it -> the class
    prefix: str  # of every tensor of an encoder, in classes that have a head on it
    parts: tuple[str, ...]  # what the names of an encoder's tensors begin with behind the prefix
    word: str  # the word table
    tied: str  # the output table of a masked LM, which is the word table
    embeddings: Callable[[Shape, str], list[Entry]]
    encoder: Callable[[Shape, str], list[Entry]]
    heads: Mapping[str, Callable[[Shape, str], list[Entry]]]  # by role


def kernel(ours: str, theirs: str, inputs: int, outputs: int) -> Entry:
    """The matrix of a linear layer, which is turned."""
    return Entry(f"{ours}/kernel", f"{theirs}.weight", (outputs, inputs), TRANSPOSED)


def linear(ours: str, theirs: str, inputs: int, outputs: int) -> list[Entry]:
    """A linear layer: a kernel that is turned, and a bias."""
    return [
        kernel(ours, theirs, inputs, outputs),
        Entry(f"{ours}/bias", f"{theirs}.bias", (outputs,)),
    ]


def scale(ours: str, theirs: str, width: int) -> Entry:
    """The scale of a norm."""
    return Entry(f"{ours}/scale", f"{theirs}.weight", (width,))
