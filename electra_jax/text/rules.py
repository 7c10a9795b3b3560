"""Normalisation rules of the SentencePiece vocabularies we train; they travel inside the model.

| lowercase | strip_accents | rules |
| no        | no            | SentencePiece's `nmt_nfkc` |
| yes       | no            | SentencePiece's `nmt_nfkc_cf` |
| any       | yes           | a table made here: NFKC, lower case if asked, then BERT's cleaning (white
                              space becomes a space, control and format characters vanish) and
                              BERT's accent stripping (combining marks vanish after NFD), then NFC |

The table follows the Unicode version of the running Python.
"""

import functools
import sys
import unicodedata

_HANGUL = range(0xAC00, 0xD7A4)


def built_in(lowercase: bool) -> str:
    """The name of SentencePiece's rules that keep accents."""
    return "nmt_nfkc_cf" if lowercase else "nmt_nfkc"


@functools.cache
def stripping_table(lowercase: bool) -> str:
    """The rules that strip accents, as the TSV that SentencePiece reads (hexadecimal)."""
    lines = []
    for point in range(1, sys.maxunicode + 1):
        if 0xD800 <= point < 0xE000:
            continue  # half a surrogate pair: no character
        before = chr(point)
        after = normalize(before, lowercase, strip=True)
        if after != before:
            lines.append(f"{point:X}\t{_hex(after)}")
    # Korean written in letters instead of syllables, as file names on a Mac are.
    for point in _HANGUL:
        lines.append(f"{_hex(unicodedata.normalize('NFD', chr(point)))}\t{point:X}")
    return "\n".join(lines) + "\n"


def normalize(character: str, lowercase: bool, strip: bool) -> str:
    """What the rules make of one character (near enough for the built-in ones to count by)."""
    text = unicodedata.normalize("NFKC", character)
    text = text.lower() if lowercase else text
    if not strip:
        return text
    return unicodedata.normalize("NFC", "".join(map(_clean, unicodedata.normalize("NFD", text))))


def _clean(character: str) -> str:
    if character.isspace() or character == "\u2581":  # the mark of a space
        return " "
    dropped = character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Mn")
    return "" if dropped else character


def _hex(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
