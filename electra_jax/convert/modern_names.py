"""The border of the modern family: tensors by the names of transformers' ModernBERT classes.

A discriminator is a `ModernBertForTokenClassification` of the classes original and replaced. The logit of the first is
0, so that the difference of both is our one logit, and its sigmoid the probability of the second.
"""

from electra_jax.convert.entries import (
    TRANSPOSED,
    TWO_CLASSES,
    VOCABULARY,
    Border,
    Entry,
    Shape,
    kernel,
    scale,
)
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM

WORD_TABLE = "model.embeddings.tok_embeddings.weight"
LABELS = ("original", "replaced")  # the classes of a discriminator


def _embeddings(shape: Shape, ours: str) -> list[Entry]:
    """The word table and its norm, under `ours`."""
    return [
        Entry(f"{ours}/word", WORD_TABLE, (shape.vocab, shape.embedding), VOCABULARY),
        scale(f"{ours}/norm", "model.embeddings.norm", shape.embedding),
    ]


def _encoder(shape: Shape, ours: str) -> list[Entry]:
    """Every layer and the last norm, under `ours`. The lowest layer has no norm of its own before attention."""
    width, ffn = shape.width, shape.ffn
    table = []
    for i in range(shape.layers):
        here, there = f"{ours}/layer_{i}", f"model.layers.{i}"
        if i:
            table.append(scale(f"{here}/attention_norm", f"{there}.attn_norm", width))
        qkv = tuple(f"{here}/{name}" for name in ("query", "key", "value"))
        table += _stacked(qkv, f"{there}.attn.Wqkv", width, width)
        table.append(kernel(f"{here}/out", f"{there}.attn.Wo", width, width))
        table.append(scale(f"{here}/feed_forward_norm", f"{there}.mlp_norm", width))
        table += _stacked((f"{here}/up", f"{here}/gate"), f"{there}.mlp.Wi", width, ffn)
        table.append(kernel(f"{here}/down", f"{there}.mlp.Wo", ffn, width))
    return [*table, scale(f"{ours}/final_norm", "model.final_norm", width)]


def _stacked(ours: tuple[str, ...], theirs: str, inputs: int, outputs: int) -> list[Entry]:
    """Matrices of ours that are one of theirs, its outputs one after another."""
    return [
        Entry(f"{one}/kernel", f"{theirs}.weight", (outputs, inputs), TRANSPOSED, i, len(ours))
        for i, one in enumerate(ours)
    ]


def prediction_head(shape: Shape, ours: str) -> list[Entry]:
    """The matrix and norm before the last layer, which all of ModernBERT's heads have."""
    return [
        kernel(f"{ours}/dense", "head.dense", shape.width, shape.width),
        scale(f"{ours}/norm", "head.norm", shape.width),
    ]


def _detection(shape: Shape, ours: str) -> list[Entry]:
    return [
        *prediction_head(shape, ours),
        Entry(f"{ours}/out/kernel", "classifier.weight", (2, shape.width), TWO_CLASSES),
        Entry(f"{ours}/out/bias", "classifier.bias", (2,), TWO_CLASSES),
    ]


def _masked_lm(shape: Shape, ours: str) -> list[Entry]:
    """Without the output table, which is the word table on both sides."""
    return [
        *prediction_head(shape, ours),
        Entry(f"{ours}/bias", "decoder.bias", (shape.vocab,), VOCABULARY),
    ]


def _none(shape: Shape, ours: str) -> list[Entry]:
    return []


BORDER = Border(
    model_type="modernbert",
    classes={
        DETECTION: "ModernBertForTokenClassification",
        MASKED_LM: "ModernBertForMaskedLM",
        ENCODER: "ModernBertModel",
    },
    prefix="model.",
    parts=("embeddings.", "layers.", "final_norm."),
    word=WORD_TABLE,
    tied="decoder.weight",
    embeddings=_embeddings,
    encoder=_encoder,
    heads={DETECTION: _detection, MASKED_LM: _masked_lm, ENCODER: _none},
)
