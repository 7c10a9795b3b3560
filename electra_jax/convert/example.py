"""What a model card shows of the held-out text: a sentence with a word masked, the language where the script tells."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from electra_jax.data.source import Prepared
from electra_jax.text.tokenizer import Tokenizer

READ_ROWS = 256
SHORTEST, LONGEST = 5, 24  # words of a sentence
ENDS = frozenset(".!?。！？।؟։።။")
# Scripts that one language of the world's web writes with; Latin, Cyrillic, Arabic and Devanagari tell nothing.
LANGUAGES = {
    "HANGUL": "ko",
    "CJK": "zh",
    "THAI": "th",
    "GREEK": "el",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "KHMER": "km",
    "LAO": "lo",
    "MYANMAR": "my",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
}
_MOST = 0.5  # of the letters: what makes a text one of its script
_KANA = 0.05  # of the letters: Chinese characters with so many are Japanese


@dataclass(frozen=True)
class Example:
    """A sentence, and the same with the mask token in place of a word."""

    text: str
    masked: str


def of(data: Prepared, tokenizer: Tokenizer) -> tuple[Example | None, str]:
    """(A sentence of the first held-out rows or None, language or ""); training rows where none are held out."""
    split = "valid" if data.rows.get("valid") else "train"
    source = data.source(split)
    rows = source.rows(np.arange(min(len(source), READ_ROWS)))
    found = _sentences(rows["ids"], rows["word_starts"], tokenizer)
    made = (masked(ids, bounds, tokenizer) for ids, bounds in found)
    special = list(tokenizer.special)
    text = tokenizer.decode(rows["ids"][~np.isin(rows["ids"], special)].tolist())
    return next((example for example in made if example is not None), None), language(text)


def language(text: str) -> str:
    """The code of the one language that writes with the script of most of the letters; empty where several do."""
    scripts = Counter(
        unicodedata.name(char, "").partition(" ")[0] for char in text if char.isalpha()
    )
    total = scripts.total()
    if not total:
        return ""
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if kana >= _KANA * total and kana + scripts["CJK"] >= _MOST * total:
        return "ja"
    script, count = scripts.most_common(1)[0]
    return LANGUAGES.get(script, "") if count >= _MOST * total else ""


def masked(ids: Sequence[int], bounds: Sequence[int], tokenizer: Tokenizer) -> Example | None:
    """The sentence with its longest word masked, the first excepted; None where no word can be told from the text.

    Word i is ids[bounds[i]:bounds[i + 1]].
    """
    text = tokenizer.decode(ids).strip()
    if not text[:1].isalnum():
        return None  # what follows a full stop may be the end of a quotation
    mask = tokenizer.tokens([tokenizer.special.mask])[0]
    best: tuple[int, str] | None = None
    for begin, end in itertools.pairwise(bounds[1:]):
        word = tokenizer.decode(ids[begin:end]).strip()
        before = tokenizer.decode(ids[:begin]).strip()
        rest = text.removeprefix(before)
        after = rest.lstrip()
        if not word.isalpha() or not text.startswith(before) or not after.startswith(word):
            continue
        gap = rest[: len(rest) - len(after)]
        if best is None or len(word) > best[0]:
            best = len(word), f"{before}{gap}{mask}{after[len(word) :]}"
    return None if best is None else Example(text, best[1])


def _sentences(
    ids_NxL: np.ndarray, starts_NxL: np.ndarray, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and word bounds of the whole sentences without an unknown token; else of the first words of rows."""
    special = set(tokenizer.special)
    ends = {i for i in np.unique(ids_NxL).tolist() if tokenizer.decode([i]).strip() in ENDS}
    rows = [(ids, starts > 0) for ids, starts in zip(ids_NxL.tolist(), starts_NxL, strict=True)]
    for ids, starts in rows:
        begin = None  # a segment may begin in the middle of a sentence
        for i, token in enumerate(ids):
            if token in special:
                begin = None
            elif token in ends:
                if begin is not None:
                    bounds = _bounds(starts, begin, i + 1)
                    if SHORTEST < len(bounds) <= LONGEST:
                        yield ids[begin : i + 1], bounds
                begin = i + 1
    for ids, starts in rows:
        end = next((i for i, token in enumerate(ids[1:], 1) if token in special), len(ids))
        bounds = _bounds(starts, 1, end)[: LONGEST // 2]
        if len(bounds) > SHORTEST:
            yield ids[1 : 1 + bounds[-1]], bounds


def _bounds(starts_L: np.ndarray, begin: int, end: int) -> list[int]:
    """Where the words of a stretch of a row begin, counted from its begin, and where the last one ends."""
    return [*np.flatnonzero(starts_L[begin:end]).tolist(), end - begin]
