"""The border of ELECTRA: tensors by the names of transformers' `ElectraForPreTraining` and `ElectraForMaskedLM`.

The mapping to the original TF1 variables is the same up to the transposed kernels.
"""

from electra_jax.convert.entries import VOCABULARY, Border, Entry, Shape, linear, scale
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM

# What other writers add and nothing needs: index buffers.
BUFFERS = ("electra.embeddings.position_ids", "electra.embeddings.token_type_ids")
TIED_TABLE = "generator_lm_head.weight"
WORD_TABLE = "electra.embeddings.word_embeddings.weight"


def _norm(ours: str, theirs: str, width: int) -> list[Entry]:
    return [scale(ours, theirs, width), Entry(f"{ours}/bias", f"{theirs}.bias", (width,))]


def _embeddings(shape: Shape, ours: str) -> list[Entry]:
    """Word, position and type tables and their LayerNorm, under `ours`."""
    at = "electra.embeddings"
    return [
        Entry(f"{ours}/word", WORD_TABLE, (shape.vocab, shape.embedding), VOCABULARY),
        Entry(
            f"{ours}/position",
            f"{at}.position_embeddings.weight",
            (shape.positions, shape.embedding),
        ),
        Entry(f"{ours}/type", f"{at}.token_type_embeddings.weight", (shape.types, shape.embedding)),
        *_norm(f"{ours}/norm", f"{at}.LayerNorm", shape.embedding),
    ]


def _encoder(shape: Shape, ours: str) -> list[Entry]:
    """The projection from the embedding (where widths differ) and every layer, under `ours`."""
    width, table = shape.width, []
    if shape.embedding != width:
        table += linear(f"{ours}/project", "electra.embeddings_project", shape.embedding, width)
    for i in range(shape.layers):
        here, there = f"{ours}/layer_{i}", f"electra.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            table += linear(f"{here}/{name}", f"{there}.attention.self.{name}", width, width)
        table += linear(f"{here}/out", f"{there}.attention.output.dense", width, width)
        table += _norm(f"{here}/attention_norm", f"{there}.attention.output.LayerNorm", width)
        table += linear(f"{here}/up", f"{there}.intermediate.dense", width, shape.ffn)
        table += linear(f"{here}/down", f"{there}.output.dense", shape.ffn, width)
        table += _norm(f"{here}/output_norm", f"{there}.output.LayerNorm", width)
    return table


def _detection(shape: Shape, ours: str) -> list[Entry]:
    width, theirs = shape.width, "discriminator_predictions"
    return [
        *linear(f"{ours}/dense", f"{theirs}.dense", width, width),
        *linear(f"{ours}/out", f"{theirs}.dense_prediction", width, 1),
    ]


def _masked_lm(shape: Shape, ours: str) -> list[Entry]:
    """Without the output table, which is the word table on both sides."""
    theirs = "generator_predictions"
    return [
        *linear(f"{ours}/dense", f"{theirs}.dense", shape.width, shape.embedding),
        *_norm(f"{ours}/norm", f"{theirs}.LayerNorm", shape.embedding),
        Entry(f"{ours}/bias", "generator_lm_head.bias", (shape.vocab,), VOCABULARY),
    ]


def _none(shape: Shape, ours: str) -> list[Entry]:
    return []


BORDER = Border(
    model_type="electra",
    classes={role: role for role in (DETECTION, MASKED_LM, ENCODER)},
    prefix="electra.",
    parts=("embeddings.", "embeddings_project.", "encoder."),
    word=WORD_TABLE,
    tied=TIED_TABLE,
    embeddings=_embeddings,
    encoder=_encoder,
    heads={DETECTION: _detection, MASKED_LM: _masked_lm, ENCODER: _none},
)
