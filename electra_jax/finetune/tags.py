"""Entities written as a tag a word: what a sequence of tags means, and writing it in one scheme."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from electra_jax.spec import check_choice

SCHEMES = ("iob2", "iob1", "bioes")
OUTSIDE = "O"


class Span(NamedTuple):
    """An entity: its type and the words [start, stop)."""

    type: str
    start: int
    stop: int


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, as conlleval (CoNLL-2000 shared task) reads them.

    IOB1, IOB2, and tags in between: an I- that continues nothing begins an entity, and so does a
    change of type. E- and S- are read as BIOES means them.
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
    """("B", "PER") of "B-PER"; ("O", "") of what is outside."""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash else ("O" if tag in (OUTSIDE, ".") else tag, "")


def _begins(before: tuple[str, str], here: tuple[str, str]) -> bool:
    return here[0] in ("B", "S") or before[0] in ("O", "E", "S") or before[1] != here[1]


def _ends(before: tuple[str, str], here: tuple[str, str]) -> bool:
    return before[0] in ("E", "S") or here[0] in ("O", "B", "S") or before[1] != here[1]


def write(entities: Iterable[Span], length: int, scheme: str) -> tuple[str, ...]:
    """The tags of a sentence of `length` words; entities must not overlap."""
    check_choice("scheme", scheme, SCHEMES)
    tags = [OUTSIDE] * length
    previous = None
    for kind, start, stop in sorted(entities, key=lambda span: span.start):
        tags[start:stop] = [f"I-{kind}"] * (stop - start)
        touches = previous is not None and previous.stop == start and previous.type == kind
        if scheme != "iob1" or touches:
            tags[start] = f"B-{kind}"
        if scheme == "bioes":
            tags[stop - 1] = f"E-{kind}" if stop - start > 1 else f"S-{kind}"
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
    prefixes = "BIES" if scheme == "bioes" else "BI"
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in prefixes))
