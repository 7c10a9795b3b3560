"""Where a text may be cut so that its ids are those of the pieces, by what its tokenizer's rules are.

A cut is proven for the kinds of rules below; text of any other tokenizer is encoded whole.

WordPiece: BERT's normaliser works character by character and its splitter takes white space and
punctuation marks as borders, and ideographs where the tokenizer says so. Words that were added to
the vocabulary are found across marks and inside words, but no word without a blank crosses one.

SentencePiece: words begin at "\u2581". A blank of the text is such a border if
- the pre-tokenizer makes each stretch between blanks a word of its own, with "\u2581" before it,
- several blanks count as one, and those at the ends do not count,
- every other rule works on one grapheme (what Unicode counts as one character of a reader) at a
  time and leaves blanks as they are.
A blank is a grapheme of its own unless a character that combines follows it, or one that belongs to
the next character precedes it. Which pieces begin or end in one is `joins`; their texts are encoded
whole.
"""

import base64
import functools
import re
import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from electra_jax.text import wordpiece
from electra_jax.text.spm import SPACE

_COLLAPSED = ("^ +| +$", ""), (" {2,}", " ")  # rules on blanks that make several of them one
_BY_CHARACTER = ("NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase")

# What BERT's normaliser puts spaces around: CJK ideographs.
_CJK = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
)
_MARKS = r"!-/:-@\[-`{-~"  # ASCII punctuation; each mark is a token of its own
_ANY_CJK = re.compile(f"[{_CJK}]")
_BY_CJK = re.compile(f"[{_CJK}]|[^ {_CJK}]+")
_BY_MARK = re.compile(f"[{_MARKS}]|[^ {_MARKS}]+")
_BY_CJK_AND_MARK = re.compile(f"[{_CJK}{_MARKS}]|[^ {_CJK}{_MARKS}]+")

Cut = Callable[[str], list[str]]


class Borders(NamedTuple):
    """`cuts`: from coarse to fine, each into pieces of what the one before gave; none where nothing is proven.
    `joins`: whether a piece cannot be told from its neighbours, so that its text must stay whole."""

    cuts: Sequence[Cut]
    joins: Callable[[str], bool] | None = None


def find(definition: Mapping[str, Any], normalize: Callable[[str], str]) -> Borders:
    """The borders that the rules of a definition prove; `normalize` applies its normaliser."""
    added = [t["content"] for t in definition.get("added_tokens") or () if not t["special"]]
    if definition["model"]["type"] == "WordPiece":
        rules = wordpiece.own_rules("the tokenizer", definition)
        if any(c.isspace() for word in added for c in word + normalize(word)):
            return Borders(())
        if added:
            return Borders((between_spaces,))
        if rules.latin_accents:  # its NFC makes one character of "<" and the mark after it
            cut = between_spaces_and_ideographs if rules.chinese_chars else between_spaces
            return Borders((cut,))
        if rules.chinese_chars:
            return Borders((between_spaces_and_ideographs, words_marks_and_ideographs))
        return Borders((between_spaces, words_and_marks))
    if added or not _blanks_are_borders(definition):
        return Borders(())
    return Borders((between_spaces,), joins)


def between_spaces(text: str) -> list[str]:
    """Pieces for any tokenizer that takes spaces as borders."""
    return text.split(" ")


def between_spaces_and_ideographs(text: str) -> list[str]:
    """Pieces for BERT: as `between_spaces`, with every ideograph alone."""
    if text.isascii() or not _ANY_CJK.search(text):
        return text.split(" ")
    return _BY_CJK.findall(text)


def words_and_marks(text: str) -> list[str]:
    """Finer pieces for BERT: ASCII punctuation marks alone too."""
    return _BY_MARK.findall(text)


def words_marks_and_ideographs(text: str) -> list[str]:
    """Finer pieces for BERT: ASCII punctuation marks and ideographs alone."""
    return _BY_CJK_AND_MARK.findall(text)


def joins(piece: str) -> bool:
    """Whether the blank before or after this piece may not be a grapheme, or its inside is a border
    only beside one: a line's end, at which blanks go too, or a "\u2581"."""
    first, last = _joining()
    return piece[:1] in first or piece[-1:] in last or "\n" in piece or SPACE in piece


def _blanks_are_borders(definition: Mapping[str, Any]) -> bool:
    splitter = definition.get("pre_tokenizer") or {}
    steps = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
    kinds = [step.get("type") for step in steps]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return False
    space = steps[-1]
    scheme = space.get("prepend_scheme", "always")
    if space.get("replacement") != SPACE or not space.get("split", True) or scheme == "never":
        return False
    split = kinds[0] == "WhitespaceSplit"
    # Only the first of several words split apart has an offset of 0.
    if split and scheme != "always":
        return False
    normalizer = definition.get("normalizer") or {"type": "Sequence", "normalizers": []}
    rules = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    collapsed = set()
    mapped = False  # by a table, which may make a mark of what was none: no rules on marks after it
    for rule in rules:
        pattern, content = rule.get("pattern"), rule.get("content") or ""
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if rule["type"] == "Replace" and (regex, content) in _COLLAPSED:
            collapsed.add(regex)
        elif collapsed:
            return False
        elif rule["type"] == "Precompiled" and not mapped:
            mapped = True
            if not _keeps_blanks(rule["precompiled_charsmap"]):
                return False
        elif rule["type"] == "Replace" and isinstance(pattern, dict) and "String" in pattern:
            if " " in pattern["String"] or not (content.isascii() and content.strip()):
                return False
        elif rule["type"] == "Lowercase":
            pass
        elif rule["type"] not in _BY_CHARACTER or mapped:
            return False
    return split or len(collapsed) == len(_COLLAPSED)


def _keeps_blanks(charsmap: str) -> bool:
    """Whether a table of rules leaves a blank a blank and makes no "\u2581" and no line of anything."""
    data = base64.b64decode(charsmap)
    (size,) = struct.unpack_from("<I", data)
    made = data[4 + size :]
    if SPACE.encode() in made or b"\n" in made:
        return False
    table = tokenizers.normalizers.Precompiled(data)
    return table.normalize_str(" ") == " "


@functools.cache
def _joining() -> tuple[frozenset[str], frozenset[str]]:
    """What combines with a character before it, and what belongs to the next.

    Taken broadly: marks, format characters, what this Python's Unicode does not know, and the letters
    that Unicode's rules of graphemes list besides.
    """
    points = [*range(0x80, 0x20000), *range(0xE0000, 0xE0200)]
    kinds = {chr(point): unicodedata.category(chr(point)) for point in points}
    first = {char for char, kind in kinds.items() if kind in ("Mn", "Mc", "Me", "Cf", "Cn")}
    first |= {"\u0e33", "\u0eb3", "\uff9e", "\uff9f", *map(chr, range(0x1F3FB, 0x1F400))}
    last = {char for char, kind in kinds.items() if kind in ("Cf", "Cn")}
    last |= {"\u0d4e", "\U000111c2", "\U000111c3", "\U0001193f", "\U00011941", "\U00011a3a"}
    last |= {*map(chr, range(0x11A84, 0x11A8A)), "\U00011d46", "\U00011f02", "\U000113d1"}
    return frozenset(first), frozenset(last)
