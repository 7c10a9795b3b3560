"""Names of tensors as other writers spelt them, brought to those of transformers' ELECTRA classes."""

import re
import sys
from collections.abc import Callable

from electra_jax.convert.formats.tensors import Tensors
from electra_jax.spec import UserError

ENCODER = ("embeddings.", "embeddings_project.", "encoder.")
PREFIX = "electra."
# Networks that some files carry beside ELECTRA's own.
_FOREIGN = re.compile(r"(^|\.)(pooler|cls)\.")
_DEBERTA = "deberta."


def usual(tensors: Tensors, what: str) -> Tensors:
    """The tensors by the usual names; what is no part of ELECTRA is left out, and said.

    Known: LayerNorms as gamma and beta, the prefix "module.", an encoder without the prefix "electra.", poolers.
    UserError for names that become the same, and for an architecture that is not ELECTRA.
    """
    stored = tensors.stored()
    if any(name.startswith(_DEBERTA) for name in stored):
        raise UserError(f"{what} holds a DeBERTa, whose attention this program does not compute")
    renames: list[Callable[[str], str]] = [_norms]
    if stored and all(name.startswith("module.") for name in stored):
        renames.insert(0, lambda name: name.removeprefix("module."))
    if any(name in ("embeddings.word_embeddings.weight",) for name in map(_norms, stored)):
        renames.append(lambda name: PREFIX + name if name.startswith(ENCODER) else name)
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


def _norms(name: str) -> str:
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
