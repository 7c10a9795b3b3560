"""The five special tokens: their roles, the names they go by, and where a vocabulary has them."""

from collections.abc import Mapping
from typing import NamedTuple

from electra_jax.spec import UserError

# The first name is the one we write; the others are met in SentencePiece models.
NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<cls>", "<s>"),
    "sep": ("[SEP]", "<sep>", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}


class SpecialIds(NamedTuple):
    """The ids of padding, unknown, start, separator and mask."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


def find(
    where: str, ids: Mapping[str, int], how_to_add: str, said: Mapping[str, str] | None = None
) -> dict[str, str]:
    """role -> token for the five roles, the name in `said` first, then the known aliases.

    Raises UserError naming the roles for which `ids` (token -> id) has no token.
    """
    found = {}
    for role, names in NAMES.items():
        names = ((said or {}).get(role, names[0]), *names)
        token = next((name for name in names if name in ids), None)
        if token is not None:
            found[role] = token
    missing = [names for role, names in NAMES.items() if role not in found]
    if missing:
        wanted = ", ".join(f"{names[0]} (or {' or '.join(names[1:])})" for names in missing)
        raise UserError(f"{where} has no {wanted}; {how_to_add}")
    if len(set(found.values())) < len(found):
        raise UserError(f"{where} uses one token for two roles: {found}; expected five tokens")
    return found
