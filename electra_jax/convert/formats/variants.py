"""Names of tensors as other writers spelt them, brought to those of transformers' ELECTRA classes."""

import functools
import re
import sys
from collections.abc import Callable

from electra_jax.convert.formats.tensors import Tensors
from electra_jax.model.options import ELECTRA, MODERN
from electra_jax.spec import UserError

# Of a family: the word table of an encoder that was saved without the prefix, what its names begin with, the prefix.
ENCODERS = {
    ELECTRA: (
        "embeddings.word_embeddings.weight",
        ("embeddings.", "embeddings_project.", "encoder."),
        "electra.",
    ),
    MODERN: (
        "embeddings.tok_embeddings.weight",
        ("embeddings.", "layers.", "final_norm."),
        "model.",
    ),
}
_WRAPPERS = ("module.", "_orig_mod.")  # of PyTorch's data parallelism and compiler
# Networks that some files carry beside ELECTRA's own.
_FOREIGN = re.compile(r"(^|\.)(pooler|cls)\.")
_DEBERTA = "deberta."


def usual(tensors: Tensors, what: str, family: str = ELECTRA) -> Tensors:
    """The tensors by the usual names; what is no part of the family's models is left out, and said.

    Known: LayerNorms as gamma and beta, the prefix "module.", an encoder without its prefix ("electra."), poolers.
    UserError for names that become the same, and for an architecture that is not ELECTRA.
    """
    stored = tensors.stored()
    if any(name.startswith(_DEBERTA) for name in stored):
        raise UserError(f"{what} holds a DeBERTa, whose attention this program does not compute")
    renames: list[Callable[[str], str]] = [_norms]
    for wrapper in _WRAPPERS:
        if stored and all(name.startswith(wrapper) for name in stored):
            renames.insert(0, functools.partial(_without, wrapper))
    word, parts, prefix = ENCODERS[family]
    if any(name == word for name in map(_norms, stored)):
        renames.append(lambda name: prefix + name if name.startswith(parts) else name)
    found = {}
    foreign = []
    for name, value in stored.items():
        new = name
        for rename in renames:
            new = rename(new)
        if _FOREIGN.search(new):
            foreign.append(name)
        elif new in found:
            raise UserError(f"{what} holds {new} twice, under two spellings")
        else:
            found[new] = value
    if foreign:
        print(f"{what}: left out {', '.join(foreign[:4])}: no part of ELECTRA", file=sys.stderr)
    return Tensors(found)


def _without(prefix: str, name: str) -> str:
    return name.removeprefix(prefix)


def _norms(name: str) -> str:
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
