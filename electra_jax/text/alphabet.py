"""Which characters a vocabulary holds: counted exactly, after normalisation."""

from collections.abc import Callable, Mapping

import numpy as np
import tokenizers

from electra_jax.text import wordpiece

# Characters are kept, most frequent first, until they cover this share of the text (SentencePiece's
# default, made for Chinese and Japanese) ...
COVERAGE = 0.9995
# ... and at least this many (BERT's trainers keep 1,000), if they are no more than a 16th of the
# vocabulary and occur twice; their entries never take more than half of it.
_FEWEST = 1000
_CODE_POINTS = 0x110000


class CharacterCounts:
    """Counts code points of text as it passes by."""

    def __init__(self) -> None:
        self._counts_C = np.zeros(_CODE_POINTS, np.int64)

    def add(self, text: str) -> None:
        """Counts the characters of `text`."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        counts = np.bincount(points)
        self._counts_C[: len(counts)] += counts

    def by_character(self) -> dict[str, int]:
        """character -> how often it passed by."""
        points = np.flatnonzero(self._counts_C).tolist()
        # Half a surrogate pair is no character.
        return {chr(p): int(self._counts_C[p]) for p in points if not 0xD800 <= p < 0xE000}


def normalized(counts: Mapping[str, int], normalize: Callable[[str], str]) -> dict[str, int]:
    """The counts of the characters that `normalize` makes of those counted, without spaces.

    The rules work on single characters (of composed text), so counting before them loses nothing.
    """
    found: dict[str, int] = {}
    for before, count in counts.items():
        for character in normalize(before):
            if not character.isspace():
                found[character] = found.get(character, 0) + count
    return found


def ranked(counts: dict[str, int]) -> list[str]:
    """Characters, the most frequent first."""
    return sorted(counts, key=lambda c: (-counts[c], c))


def choose(
    counts: dict[str, int], size: int, entries_of: Callable[[str], list[str]] = lambda c: [c]
) -> list[str]:
    """The characters, by code point, that a vocabulary of `size` should hold (see COVERAGE)."""
    chosen: list[str] = []
    total, covered, room = sum(counts.values()), 0, size // 2
    fewest = min(_FEWEST, size // 16)
    for character in ranked(counts):
        rare = len(chosen) >= fewest or counts[character] == 1
        room -= len(entries_of(character))
        if room < 0 or (covered >= COVERAGE * total and rare):
            break
        chosen.append(character)
        covered += counts[character]
    return sorted(chosen)


def forms(character: str, backend: tokenizers.Tokenizer) -> list[str]:
    """The WordPiece entries of a character: as it begins a word and, unless it is always a word of
    its own (punctuation, ideographs), as it goes on in one ("##c")."""
    text = backend.normalizer.normalize_str(f"a{character}a")
    alone = len(backend.pre_tokenizer.pre_tokenize_str(text)) > 1
    return [character] if alone else [character, f"{wordpiece.PREFIX}{character}"]
