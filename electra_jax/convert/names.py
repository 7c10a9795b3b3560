"""The border table: our parameter paths and Hugging Face's tensor names, checked from both sides.

Names on their side are those of transformers' `ElectraForPreTraining` and `ElectraForMaskedLM`; the
mapping to the original TF1 variables is the same up to the transposed kernels.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from electra_jax.convert.formats.tensors import shapes_of
from electra_jax.objective.export import DETECTION, ENCODER, MASKED_LM, Export
from electra_jax.spec import UserError

SAME, TRANSPOSED, VOCABULARY = "same", "transposed", "vocabulary"
# What other writers add and nothing needs: index buffers, the output table tied to the input one.
BUFFERS = ("electra.embeddings.position_ids", "electra.embeddings.token_type_ids")
TIED_TABLE = "generator_lm_head.weight"
WORD_TABLE = "electra.embeddings.word_embeddings.weight"


MOST_LISTED = 60  # problems of an error: two whole layers and the embeddings


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Entry:
    """One tensor on both sides: our path, their name, their shape, and what happens in between."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    transform: str = SAME

    def to_theirs(self, value: np.ndarray) -> np.ndarray:
        """Our array as theirs: kernels [in, out] become [out, in], vocabulary padding goes."""
        if self.transform == TRANSPOSED:
            value = value.T
        elif self.transform == VOCABULARY:
            value = value[: self.shape[0]]
        return np.ascontiguousarray(value, np.float32)

    def to_ours(self, value: np.ndarray, padded_vocab: int) -> np.ndarray:
        """Their array as ours, float32; zero rows fill the vocabulary up to `padded_vocab`."""
        value = np.asarray(value, np.float32)
        if self.transform == TRANSPOSED:
            value = value.T
        elif self.transform == VOCABULARY:
            rows = padded_vocab - value.shape[0]
            value = np.pad(value, [(0, rows)] + [(0, 0)] * (value.ndim - 1))
        return np.ascontiguousarray(value)

    def our_shape(self, padded_vocab: int) -> tuple[int, ...]:
        """The shape of our array, given the padded vocabulary."""
        if self.transform == TRANSPOSED:
            return self.shape[::-1]
        return (padded_vocab, *self.shape[1:]) if self.transform == VOCABULARY else self.shape


def linear(ours: str, theirs: str, inputs: int, outputs: int) -> list[Entry]:
    """A linear layer: a kernel that is turned, and a bias."""
    return [
        Entry(f"{ours}/kernel", f"{theirs}.weight", (outputs, inputs), TRANSPOSED),
        Entry(f"{ours}/bias", f"{theirs}.bias", (outputs,)),
    ]


def _norm(ours: str, theirs: str, width: int) -> list[Entry]:
    return [
        Entry(f"{ours}/scale", f"{theirs}.weight", (width,)),
        Entry(f"{ours}/bias", f"{theirs}.bias", (width,)),
    ]


def embeddings(shape: Shape, ours: str = "embeddings") -> list[Entry]:
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


def encoder(shape: Shape, ours: str) -> list[Entry]:
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


# The head that a class of transformers has on its encoder.
_HEADS = {DETECTION: _detection, MASKED_LM: _masked_lm, ENCODER: _none}


def table(export: Export, shape: Shape) -> list[Entry]:
    """The border table of a model that an objective leaves behind."""
    return [
        *embeddings(shape, export.embeddings),
        *encoder(shape, export.encoder),
        *_HEADS[export.hf_class](shape, export.head),
    ]


def encoder_only(shape: Shape) -> list[Entry]:
    """What every class has: embeddings and encoder, under the names of a model without pretraining heads."""
    return [*embeddings(shape), *encoder(shape, "encoder")]


def export(
    params: Mapping[str, np.ndarray],
    tables: Sequence[Sequence[Entry]],
    padded_vocab: int,
    what: str,
) -> list[dict[str, np.ndarray]]:
    """Our flat parameters as one dict of their tensors per table.

    Every parameter must be named by a table and every entry must be there with its shape, else
    UserError lists all that are missing, unused or misshapen. `what` says where they came from.
    """
    wanted = {entry.ours: entry.our_shape(padded_vocab) for table in tables for entry in table}
    check(wanted, {name: tuple(value.shape) for name, value in params.items()}, what)
    return [
        {entry.theirs: entry.to_theirs(params[entry.ours]) for entry in table} for table in tables
    ]


def import_(
    tensors: Mapping[str, np.ndarray], table: Sequence[Entry], padded_vocab: int, what: str
) -> dict[str, np.ndarray]:
    """Their tensors as our flat parameters, checked as in `export`.

    Index buffers are passed over, and so is the output table of a generator where it equals the
    word table it is tied to; where it does not, UserError says so.
    """
    shapes = {name: s for name, s in shapes_of(tensors).items() if name not in BUFFERS}
    if TIED_TABLE in shapes and any(entry.theirs == "generator_lm_head.bias" for entry in table):
        if WORD_TABLE in shapes and not np.array_equal(tensors[TIED_TABLE], tensors[WORD_TABLE]):
            raise UserError(
                f"{what}: {TIED_TABLE} differs from {WORD_TABLE}; ELECTRA ties the output table "
                "to the input table, so an untied head cannot be imported"
            )
        del shapes[TIED_TABLE]
    check({entry.theirs: entry.shape for entry in table}, shapes, what)
    found = {}
    for entry in table:
        value = tensors[entry.theirs]
        if value.dtype.kind != "f":
            raise UserError(
                f"{what}: {entry.theirs} holds {value.dtype} instead of floats; a quantised model has to be saved in "
                "float32 or bfloat16 first"
            )
        found[entry.ours] = entry.to_ours(value, padded_vocab)
    return found


def check(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raises UserError that lists the missing, unexpected and misshapen names of `found`, at most MOST_LISTED."""
    problems = [
        f"missing {name} {list(wanted[name])}" for name in _sorted(set(wanted) - set(found))
    ]
    problems += [
        f"unexpected {name} {list(found[name])}" for name in _sorted(set(found) - set(wanted))
    ]
    problems += [
        f"{name} has shape {list(found[name])}, expected {list(wanted[name])}"
        for name in _sorted(set(wanted) & set(found))
        if found[name] != wanted[name]
    ]
    if problems:
        raise UserError(
            f"{what}: {len(problems)} tensors do not fit the model its config describes:\n  "
            + "\n  ".join(problems[:MOST_LISTED])
            + (f"\n  and {len(problems) - MOST_LISTED:,} more" * (len(problems) > MOST_LISTED))
        )


def _sorted(names: Iterable[str]) -> list[str]:
    """Sorted with numbers by value, so that layer 10 follows layer 9."""
    return sorted(
        names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
    )
