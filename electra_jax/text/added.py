"""Words added to a vocabulary after its training: where folders keep them, and their ids.

Beside a `tokenizer.json`, which lists them with all others, folders name them in `added_tokens.json`
(token -> id) or in `added_tokens_decoder` of `tokenizer_config.json` (id -> token and options).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.spec import UserError

FILE = "added_tokens.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

_UNSPELT = "\ufdd0\ufdd1\ufdd2"  # code points that Unicode keeps from text for good

Added = dict[str, Any]  # an entry of `added_tokens` in a tokenizer.json


def token(number: int, content: str, special: bool) -> Added:
    """An entry with the usual options."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {"id": number, "content": content, **flags, "special": special}


def listed(
    where: str, found: Mapping[str, Any], file: Mapping[str, Any], said: Mapping[str, Any]
) -> list[Added]:
    """All added tokens of a folder: of its definition `found`, its `added_tokens.json` and `said`, its
    `tokenizer_config.json`, by id. A token that several name is taken from the first.

    Raises UserError for what is no such list, naming `where`.
    """
    entries: dict[str, Added] = {}
    special = _specials(said)
    decoder = said.get("added_tokens_decoder") or {}
    try:
        for entry in found.get("added_tokens") or ():
            entries.setdefault(entry["content"], _checked(entry, entry["id"]))
        for number, entry in decoder.items():
            entries.setdefault(entry["content"], _checked(entry, int(number)))
        for content, number in file.items():
            entries.setdefault(
                content, _checked(token(number, content, content in special), number)
            )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"the added tokens of {where} are damaged ({error}); expected a text and an id for each"
        ) from None
    return sorted(entries.values(), key=lambda entry: entry["id"])


def beyond(
    entries: Sequence[Added], vocab: Mapping[str, int], roles: Mapping[str, str]
) -> list[Added]:
    """The entries that say more than `vocab` (token -> id) and the special tokens by role."""
    names = set(roles.values())
    kept = []
    for entry in entries:
        entry = {**entry, "special": entry["special"] or entry["content"] in names}
        if not entry["special"] or entry["content"] not in vocab:
            kept.append(entry)
    return kept


def _checked(entry: Mapping[str, Any], number: int) -> Added:
    content = entry["content"]
    if not isinstance(content, str) or not content:
        raise ValueError(f"the token {content!r} is no text")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{content!r} has the id {number!r}")
    usual = token(number, content, bool(entry.get("special", False)))
    return {**usual, **{flag: bool(entry.get(flag, usual[flag])) for flag in _FLAGS}}


def _specials(said: Mapping[str, Any]) -> set[str]:
    """The names of all special tokens that the folder's options speak of."""
    found: set[str] = set()
    for key, value in said.items():
        if key.endswith(("_token", "special_tokens")):
            for entry in value if isinstance(value, list) else [value]:
                text = entry.get("content") if isinstance(entry, dict) else entry
                found |= {text} if isinstance(text, str) else set()
    return found


def spelt(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that text may spell, and, so that their ids are right, the special ones between
    the vocabulary and them under a name that no text has."""
    vocab = definition["model"]["vocab"]
    entries = set(vocab) if isinstance(vocab, dict) else {token for token, _ in vocab}
    found: list[dict[str, Any]] = []
    last = 0
    for token in sorted(definition.get("added_tokens") or (), key=lambda token: token["id"]):
        if not token["special"]:
            found.append(token)
            last = len(found)
        elif token["content"] not in entries:
            found.append({**token, "content": f"{_UNSPELT}{token['content']}", "normalized": False})
    return found[:last]
