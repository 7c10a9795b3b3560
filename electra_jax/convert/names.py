"""The border table: our parameter paths and Hugging Face's tensor names, checked from both sides."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from electra_jax.convert import electra_names, modern_names
from electra_jax.convert.entries import Border, Entry, Shape
from electra_jax.convert.formats.tensors import shapes_of
from electra_jax.model.options import ELECTRA, MODERN
from electra_jax.objective.export import Export
from electra_jax.spec import UserError

BORDERS: dict[str, Border] = {ELECTRA: electra_names.BORDER, MODERN: modern_names.BORDER}
MOST_LISTED = 60  # problems of an error: two whole layers and the embeddings
_TIED = {border.tied: border.word for border in BORDERS.values()}


def table(export: Export, shape: Shape) -> list[Entry]:
    """The border table of a model that an objective leaves behind."""
    border = BORDERS[shape.family]
    return [
        *border.embeddings(shape, export.embeddings),
        *border.encoder(shape, export.encoder),
        *border.heads[export.hf_class](shape, export.head),
    ]


def encoder_only(shape: Shape, ours: str = "encoder") -> list[Entry]:
    """What every class has: embeddings and encoder, by default under the names of a model without pretraining heads."""
    border = BORDERS[shape.family]
    return [*border.embeddings(shape, "embeddings"), *border.encoder(shape, ours)]


def encoder_tensors(
    tensors: Mapping[str, np.ndarray], family: str, what: str
) -> dict[str, np.ndarray]:
    """The encoder's tensors with the prefix of most classes; heads and poolers, whatever they are for, are left out.

    Found by the name of the word table, not by the class that the config names: what stands before it stands before
    all of the encoder. Raises UserError where there is no word table, or are several.
    """
    border = BORDERS[family]
    word = border.word.removeprefix(border.prefix)
    tables = [name for name in tensors if name == word or name.endswith("." + word)]
    if len(tables) != 1:
        found = ", ".join(tables) or ", ".join(sorted(tensors)[:3]) + ", ..."
        raise UserError(
            f"{what}: expected the tensors of one encoder, among them one {word}; found {found}"
        )
    before = tables[0].removesuffix(word)
    return {
        border.prefix + name.removeprefix(before): value
        for name, value in tensors.items()
        if name.startswith(before) and name.removeprefix(before).startswith(border.parts)
    }


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
    return [_theirs(params, table) for table in tables]


def _theirs(params: Mapping[str, np.ndarray], table: Sequence[Entry]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for entry in table:
        parts.setdefault(entry.theirs, []).append(entry.to_theirs(params[entry.ours]))
    return {name: np.concatenate(x) if len(x) > 1 else x[0] for name, x in parts.items()}


def import_(
    tensors: Mapping[str, np.ndarray], table: Sequence[Entry], padded_vocab: int, what: str
) -> dict[str, np.ndarray]:
    """Their tensors as our flat parameters, checked as in `export`.

    Index buffers are passed over, and so is the output table of a masked LM where it equals the
    word table it is tied to; where it does not, UserError says so.
    """
    wanted = {entry.theirs: entry.their_shape for entry in table}
    shapes = {n: s for n, s in shapes_of(tensors).items() if n not in electra_names.BUFFERS}
    for tied, word in _TIED.items():
        if tied not in shapes or tied.removesuffix("weight") + "bias" not in wanted:
            continue
        if word in shapes and not np.array_equal(tensors[tied], tensors[word]):
            raise UserError(
                f"{what}: {tied} differs from {word}; here the output table is the input table, so an untied head "
                "cannot be imported"
            )
        del shapes[tied]
    check(wanted, shapes, what)
    found: dict[str, np.ndarray] = {}
    read: tuple[str, np.ndarray] | None = None
    for entry in table:
        if read is None or read[0] != entry.theirs:  # entries of one tensor follow each other
            read = entry.theirs, tensors[entry.theirs]
        if read[1].dtype.kind != "f":
            raise UserError(
                f"{what}: {entry.theirs} holds {read[1].dtype} instead of floats; a quantised model has to be saved in "
                "float32 or bfloat16 first"
            )
        found[entry.ours] = entry.to_ours(read[1], padded_vocab)
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
