"""What the vocabularies we train do to text: case, accents, and the dotted and dotless i of Turkish.

`accents` is one of

| keep  | every mark stays
| strip | the accents of Latin, Greek and Cyrillic letters vanish; the marks of other scripts, which
          are letters there (Thai vowels, Japanese voicing, Arabic hamza), stay
| bert  | the original BERT's rule: every combining mark of every script vanishes

A SentencePiece model carries its rules inside, as a table: SentencePiece's own `nmt_nfkc` or
`nmt_nfkc_cf` where they do, else one made here: NFKC, lower case, white space becomes a space,
control characters vanish, accents as above, then NFC. WordPiece has BERT's normaliser, behind the
steps that it cannot express. The tables follow the Unicode version of the running Python.
"""

import dataclasses
import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from electra_jax.spec import check_choice

ACCENTS = ("keep", "strip", "bert")
LANGUAGES = (
    "tr",
    "az",
)  # with a dotless i, whose capital is I, and a dotted one, whose capital is \u0130

Step = Mapping[str, Any]  # of a normaliser in a tokenizer.json

_HANGUL = range(0xAC00, 0xD7A4)
_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
# Blocks of marks that any letter of these scripts may carry.
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\ufe20-\ufe2f]")
_JOINERS = "\u200c\u200d"  # format characters that Persian and Indic spelling needs

_DOTTED: tuple[Step, ...] = tuple(
    {"type": "Replace", "pattern": {"String": capital}, "content": small}
    for capital, small in (("I\u0307", "i"), ("\u0130", "i"), ("I", "\u0131"))
)
_STRIP: tuple[Step, ...] = (
    {"type": "NFD"},
    {
        "type": "Replace",
        "pattern": {"Regex": r"(?<=[\p{Latin}\p{Greek}\p{Cyrillic}])\p{Mn}+"},
        "content": "",
    },
    {"type": "NFC"},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done to text before a vocabulary is looked up. Raises UserError for unknown choices."""

    lowercase: bool = True
    accents: str = "keep"
    language: str | None = None

    def __post_init__(self) -> None:
        check_choice("--accents", self.accents, ACCENTS)
        check_language(self.language)

    @property
    def dotted(self) -> bool:
        """Whether I and \u0130 become the dotless and the dotted i."""
        return self.lowercase and self.language is not None

    def normalize(self, character: str) -> str:
        """What the rules of a SentencePiece model make of one character (near enough for the built-in
        ones to count by)."""
        text = unicodedata.normalize("NFKC", character)
        if self.dotted:
            text = text.replace("\u0130", "i").replace("I", "\u0131")
        text = text.lower() if self.lowercase else text
        if self.accents == "keep":
            return "".join(map(_clean, text)) if self.dotted else text
        text = unicodedata.normalize("NFD", text)
        if self.accents == "bert":
            text = "".join(_clean_all(character) for character in text)
        else:
            text = "".join(map(_clean, _without_accents(text)))
        return unicodedata.normalize("NFC", text)


def check_language(language: str | None) -> None:
    """Raises UserError for a language that has no rules of its own."""
    if language is not None:
        check_choice("--language", language, LANGUAGES)


def steps(accents: str, dotted: bool) -> list[Step]:
    """The steps of WordPiece's rules that come before BERT's normaliser."""
    return [*(_DOTTED if dotted else ()), *(_STRIP if accents == "strip" else ())]


def read_steps(found: Sequence[Step]) -> tuple[str, bool] | None:
    """(accents, dotted) of `steps`, "keep" without any; None for steps that are not ours."""
    for accents, dotted in itertools.product(("keep", "strip"), (False, True)):
        if steps(accents, dotted) == list(found):
            return accents, dotted
    return None


def built_in(rules: Rules) -> str | None:
    """The name of SentencePiece's rules that do the same, if there are any."""
    if rules.accents != "keep" or rules.dotted:
        return None
    return "nmt_nfkc_cf" if rules.lowercase else "nmt_nfkc"


@functools.cache
def table(rules: Rules) -> str:
    """The rules as the TSV that SentencePiece reads (hexadecimal)."""
    lines = []
    apart = [] if rules.accents == "bert" else list(_letters_with_marks())
    for point in range(1, sys.maxunicode + 1):
        before = chr(point)
        if unicodedata.category(before) in ("Cn", "Co", "Cs"):
            continue  # no character, one of nobody's, half a surrogate pair
        after = rules.normalize(before)
        if after != before:
            lines.append(f"{point:X}\t{_hex(after)}")
    for text, letter in apart:
        lines.append(f"{_hex(text)}\t{_hex(rules.normalize(letter))}")
    # Korean written in letters instead of syllables, as file names on a Mac are.
    for point in _HANGUL:
        lines.append(f"{_hex(unicodedata.normalize('NFD', chr(point)))}\t{point:X}")
    return "\n".join(lines) + "\n"


def _letters_with_marks() -> Iterator[tuple[str, str]]:
    """Every way to write a letter in several characters, and the letter (Hangul apart)."""
    for point in range(0xC0, sys.maxunicode + 1):
        letter = chr(point)
        if point in _HANGUL or not unicodedata.is_normalized("NFC", letter):
            continue
        for text in sorted(_spellings(letter)):
            yield text, letter


def _spellings(letter: str) -> set[str]:
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 1:
        return set()
    orders = {parts[0] + "".join(order) for order in itertools.permutations(parts[1:])}
    found = {
        unicodedata.normalize("NFC", text[:end]) + text[end:]
        for text in orders
        for end in range(1, len(text))
    }
    return {
        text for text in found if len(text) > 1 and unicodedata.normalize("NFC", text) == letter
    }


def _without_accents(text: str) -> Iterable[str]:
    """The characters of decomposed text without the accents of Latin, Greek and Cyrillic."""
    accented = True  # a mark alone: one of a letter that Unicode has no composed form for
    for character in text:
        if unicodedata.category(character) != "Mn":
            accented = _in_scripts(character)
        elif accented and (text[0] != character or _MARKS.fullmatch(character)):
            continue
        yield character


def is_accented(letter: str) -> bool:
    """Whether a mark of this letter is an accent, or it is one itself: Latin, Greek and Cyrillic."""
    first = unicodedata.normalize("NFD", letter)[0]
    return _in_scripts(first) or _MARKS.fullmatch(first) is not None


@functools.cache
def _in_scripts(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_SCRIPTS)


def _clean(character: str) -> str:
    kept = character in _JOINERS or unicodedata.category(character) == "Mn"
    return character if kept else _clean_all(character)


def _clean_all(character: str) -> str:
    if character.isspace() or character == "\u2581":  # the mark of a space
        return " "
    dropped = character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Mn")
    return "" if dropped else character


def _hex(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
