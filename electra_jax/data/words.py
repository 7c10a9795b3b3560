"""Where words begin: by token, by character in Chinese, or by the words a segmenter finds there."""

import logging
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from electra_jax.spec import UserError, check_choice
from electra_jax.text.tokenizer import Tokenizer

SEGMENTERS = ("jieba",)  # besides MeCab, which is part of a tokenizer

# Unicode blocks of Chinese characters; WordPiece makes each of them a token (Devlin et al., 2019).
_HAN = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


def is_han(char: str) -> bool:
    """Whether a character is Chinese (in any of the languages that write with them)."""
    code = ord(char)
    return any(first <= code <= last for first, last in _HAN)


class Words:
    """Tells which tokens begin a word.

    `han_V` marks the tokens that begin with a Chinese character; these begin a word each, unless a
    segmenter is given that knows better, or the tokenizer has one. `kana_V` and `hangul_V` mark those
    that begin with a letter of Japanese or Korean alone.
    """

    def __init__(self, tokenizer: Tokenizer, segmenter: str | None = None) -> None:
        tokens = tokenizer.tokens(range(tokenizer.size))
        bare = [token.removeprefix("##").removeprefix("\u2581") for token in tokens]
        self.han_V = np.array([bool(token) and is_han(token[0]) for token in bare])
        self.kana_V = np.array(["\u3040" <= token[:1] <= "\u30ff" for token in bare], bool)
        self.hangul_V = np.array([_is_hangul(token[:1]) for token in bare], bool)
        self._starts_V = np.asarray(tokenizer.starts_V, bool)
        self._unmarked = tokenizer.is_byte_level
        if not tokenizer.cuts_words:
            self._starts_V = self._starts_V | self.han_V
        self._han_of = {i: _han(bare[i]) for i in np.flatnonzero(self.han_V).tolist()}
        self._segment = load_segmenter(segmenter) if segmenter else None

    def starts(
        self, lines: Sequence[str], lengths_P: np.ndarray, tokens_N: np.ndarray
    ) -> np.ndarray:
        """Bool [N]: which of `tokens_N`, those of `lines` one after another, begin a word."""
        starts_N = self._starts_V[tokens_N]
        if self._unmarked:  # no entry says that the first word of a text begins
            firsts = (np.cumsum(lengths_P) - lengths_P)[np.asarray(lengths_P) > 0]
            starts_N[firsts] = True
        if self._segment is None:
            return starts_N
        han_N = self.han_V[tokens_N]
        ends = np.cumsum(lengths_P)
        for text, begin, end in zip(lines, ends - lengths_P, ends, strict=True):
            places = (begin + np.flatnonzero(han_N[begin:end])).tolist()
            if places:
                found = [(place, self._han_of[int(tokens_N[place])]) for place in places]
                self._mark(starts_N, found, self._segment(text))
        return starts_N

    def _mark(
        self, starts_N: np.ndarray, found: list[tuple[int, str]], words: Sequence[str]
    ) -> None:
        """Lays the Chinese characters of a line's tokens beside those of its words, in order; a
        character without a token of its own ([UNK]) is passed over."""
        chars, begins = [], []
        for word in words:
            begin = True
            for char in word:
                for han in _han(char):
                    chars.append(han)
                    begins.append(begin)
                begin = False
        place = 0
        for token, token_chars in found:
            for i, char in enumerate(token_chars):
                try:
                    here = chars.index(char, place)
                except ValueError:
                    continue
                if i == 0:
                    starts_N[token] = begins[here]
                place = here + 1


def load_segmenter(name: str) -> Callable[[str], list[str]]:
    """The function that splits a line into words. Raises UserError when its library is missing."""
    check_choice("segmenter", name, SEGMENTERS)
    try:
        import jieba
    except ImportError:
        raise UserError(
            "finding Chinese words needs the package jieba: pip install 'electra_jax[zh]'"
        ) from None
    jieba.setLogLevel(logging.WARNING)
    return jieba.lcut


def _is_hangul(char: str) -> bool:
    """Whether a character is Korean, as a syllable or a letter."""
    return "\uac00" <= char <= "\ud7a3" or "\u1100" <= char <= "\u11ff"


def _han(text: str) -> str:
    """The Chinese characters of a text, compatibility forms made one with the usual ones."""
    return "".join(unicodedata.normalize("NFKC", char) for char in text if is_han(char))
