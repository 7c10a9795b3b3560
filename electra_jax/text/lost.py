"""What becomes [UNK]: characters that a vocabulary cannot spell, and words too long to be looked up."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from electra_jax.text import wordpiece
from electra_jax.text.tokenizer import Tokenizer

_MOST = 200_000  # words whose losses are remembered


class LongWords:
    """Counts words of text, as BERT splits it, that have more than `limit` characters."""

    def __init__(self, limit: int) -> None:
        self.limit, self.words, self.characters, self.longest = limit, 0, 0, 0
        self._candidates = re.compile(rf"\S{{{limit + 1},}}")
        self._normalizer = tokenizers.normalizers.BertNormalizer(True, True, False, False)
        self._splitter = tokenizers.pre_tokenizers.BertPreTokenizer()

    def add(self, text: str) -> None:
        """Counts the long words of `text`."""
        for found in self._candidates.findall(text):
            normal = self._normalizer.normalize_str(found)
            for word, _ in self._splitter.pre_tokenize_str(normal):
                if len(word) > self.limit:
                    self.words += 1
                    self.characters += len(word)
                    self.longest = max(self.longest, len(word))

    def lines(self, total: int) -> Iterable[str]:
        """The warning, if there is need of one; `total` is the number of characters of all text."""
        if not self.words:
            return
        share = self.characters / max(1, total)
        wanted = min(self.longest, wordpiece.MOST_WORD)
        yield (
            f"warning: {self.words:,} words have more than {self.limit} characters ({share:.1%} of the "
            f"text; the longest has {self.longest:,}). Encoding makes each of them [UNK]: raise the limit "
            f"with --max-word (up to {wanted:,} here), or train --kind unigram or bpe, which have none"
        )


class Loss(NamedTuple):
    """Characters of text under [UNK], and those of them in words that are too long."""

    unknown: int = 0
    too_long: int = 0


class Lost:
    """Counts what `tokenizer` loses of texts, word by word, each word once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._of: dict[str, Loss] = {}

    def count(self, texts: Iterable[str]) -> Loss:
        """The loss in all of the texts, cut at blanks."""
        words = [word for text in texts for word in text.split()]
        if len(self._of) > _MOST:
            self._of.clear()
        new = list(dict.fromkeys(word for word in words if word not in self._of))
        self._of.update(dict.fromkeys(new, Loss()))
        losing = self._with_unknown(new)
        self._of.update(zip(losing, self._losses(losing), strict=True))
        found = [self._of[word] for word in words]
        return Loss(sum(loss.unknown for loss in found), sum(loss.too_long for loss in found))

    def _with_unknown(self, words: Sequence[str]) -> list[str]:
        """Those in which something is unknown; quick, because the tokenizer has seen them."""
        ids, lengths = self._tokenizer.encode_flat(words)
        word_of_id = np.repeat(np.arange(len(words)), lengths)
        return [
            words[number] for number in np.unique(word_of_id[ids == self._tokenizer.special.unk])
        ]

    def _losses(self, words: Sequence[str]) -> Iterable[Loss]:
        longest, unk = self._tokenizer.max_word, self._tokenizer.special.unk
        for ids, places in self._tokenizer.encode_offsets(words):
            lengths = (places[:, 1] - places[:, 0])[ids == unk]
            long = lengths[lengths > longest] if longest is not None else lengths[:0]
            yield Loss(int(lengths.sum()), int(long.sum()))
