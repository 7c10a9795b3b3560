"""Entities written as a tag a word: what a sequence of tags means, and writing it in one scheme."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from electra_jax.spec import check_choice

SCHEMES = ("iob2", "iob1", "bioes", "bmes", "bilou")
OUTSIDE = "O"
# What a prefix means, in the letters of BIOES. BMES has M inside, BILOU L last and U alone, BMEWO W alone.
_MEANING = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S", "W": "S"}
# Scheme -> its letters for the begin, inside, end and single of BIOES.
_LETTERS = {
    "iob2": "BIIB",
    "iob1": "IIII",
    "bioes": "BIES",
    "bmes": "BMES",
    "bilou": "BILU",
}


class Span(NamedTuple):
    """An entity: its type and the words [start, stop)."""

    type: str
    start: int
    stop: int


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, as conlleval (CoNLL-2000 shared task) reads them.

    IOB1, IOB2, and tags in between: an I- that continues nothing begins an entity, and so does a
    change of type. E-, S- and their kin are read as BIOES, BMES and BILOU mean them.
    """
    found = []
    begun, before = 0, ("O", "")
    for number, tag in enumerate([*tags, OUTSIDE]):
        here = parts(tag)
        if before[0] != "O" and _ends(before, here):
            found.append(Span(before[1], begun, number))
        if here[0] != "O" and _begins(before, here):
            begun = number
        before = here
    return found


def parts(tag: str) -> tuple[str, str]:
    """("B", "PER") of "B-PER", the letter being BIOES's; ("O", "") of what is outside."""
    prefix, dash, kind = tag.partition("-")
    if not dash and tag in (OUTSIDE, "."):
        return "O", ""
    return _MEANING.get(prefix, prefix), kind


def fault(tag: str) -> str | None:
    """What keeps `tag` from marking an entity or its outside; None for a tag of any of the schemes.

    Entities of one kind may do without a type: B, I, O.
    """
    prefix, dash, kind = tag.partition("-")
    if tag == OUTSIDE or (prefix in _MEANING and (kind or not dash)):
        return None
    if prefix in _MEANING:
        return "has no type behind its prefix"
    if dash:
        return f"begins with none of {' '.join(f'{letter}-' for letter in _MEANING)}"
    return "is neither O nor one such as B-PER"


def mark_entities(tags: Iterable[str]) -> bool:
    """Whether these tags, of a whole file, mark entities; parts of speech and their kin do not."""
    found = set(tags)
    prefixes = {tag.partition("-")[0] for tag in found if "-" in tag}
    return bool(prefixes & set(_MEANING)) or found <= {OUTSIDE, *_MEANING}


def _begins(before: tuple[str, str], here: tuple[str, str]) -> bool:
    return here[0] in ("B", "S") or before[0] in ("O", "E", "S") or before[1] != here[1]


def _ends(before: tuple[str, str], here: tuple[str, str]) -> bool:
    return before[0] in ("E", "S") or here[0] in ("O", "B", "S") or before[1] != here[1]


def write(entities: Iterable[Span], length: int, scheme: str) -> tuple[str, ...]:
    """The tags of a sentence of `length` words; entities must not overlap."""
    check_choice("scheme", scheme, SCHEMES)
    begin, inside, end, single = tuple(_LETTERS[scheme])
    tags = [OUTSIDE] * length
    previous = None
    for kind, start, stop in sorted(entities, key=lambda span: span.start):
        letters = [single] if stop - start == 1 else [begin, *[inside] * (stop - start - 2), end]
        touches = previous is not None and previous.stop == start and previous.type == kind
        if scheme == "iob1" and touches:
            letters[0] = "B"
        tags[start:stop] = [f"{letter}-{kind}" if kind else letter for letter in letters]
        previous = Span(kind, start, stop)
    return tuple(tags)


def rewrite(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """The same entities in another scheme."""
    return write(spans(tags), len(tags), scheme)


def types(labels: Iterable[str]) -> tuple[str, ...]:
    """The types of entity that these tags name, sorted."""
    return tuple(sorted({parts(label)[1] for label in labels} - {""}))


def scheme_labels(types: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Every tag that the scheme has for these types, the outside first."""
    check_choice("scheme", scheme, SCHEMES)
    prefixes = dict.fromkeys("BI" if scheme == "iob1" else _LETTERS[scheme])
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in prefixes))
