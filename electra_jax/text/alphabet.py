"""Which characters a WordPiece vocabulary holds: counted exactly, after normalisation."""

from collections.abc import Iterable

import numpy as np
import tokenizers

from electra_jax.text import wordpiece

# Characters are kept, most frequent first, until they cover this share of the text. (The field's
# trainers keep a fixed 1,000, which is too few for Chinese and mostly noise for English.)
COVERAGE = 0.9999
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

    def normalized(self, normalizer: tokenizers.normalizers.Normalizer) -> dict[str, int]:
        """The counts of the characters that `normalizer` makes of them, without spaces.

        BERT's normaliser works on single characters, so counting before it loses nothing.
        """
        counts: dict[str, int] = {}
        for point in np.flatnonzero(self._counts_C):
            if 0xD800 <= point < 0xE000:
                continue  # half a surrogate pair: no character
            for character in normalizer.normalize_str(chr(point)):
                if not character.isspace():
                    counts[character] = counts.get(character, 0) + int(self._counts_C[point])
        return counts


def choose(counts: dict[str, int], most: int) -> list[str]:
    """At most `most` characters covering COVERAGE of `counts`, sorted by code point."""
    total, covered, chosen = sum(counts.values()), 0, []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        if covered >= COVERAGE * total or len(chosen) == most:
            break
        chosen.append(character)
        covered += counts[character]
    return sorted(chosen)


def entries(characters: Iterable[str], backend: tokenizers.Tokenizer) -> list[str]:
    """The vocabulary entries of an alphabet: each character as it begins a word and, unless it is
    always a word of its own (punctuation, ideographs), as it goes on in one ("##c")."""
    characters = list(characters)
    inside = [f"{wordpiece.PREFIX}{c}" for c in characters if not _stands_alone(c, backend)]
    return characters + inside


def _stands_alone(character: str, backend: tokenizers.Tokenizer) -> bool:
    text = backend.normalizer.normalize_str(f"a{character}a")
    return len(backend.pre_tokenizer.pre_tokenize_str(text)) > 1
