"""Rows that no corpus is needed for: full, two segments each, the same on every machine."""

import dataclasses
from pathlib import Path

import numpy as np

from electra_jax.data.source import Prepared
from electra_jax.text.special import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)  # as in BERT's vocabularies
FIRST_WORD = 999  # of them; the ids below are special or unused
ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class SyntheticData(Prepared):
    """A prepared folder that is not there: every row is drawn from its own number."""

    def source(self, split: str) -> "SyntheticRows":  # type: ignore[override]
        """Random rows, whatever the split."""
        return SyntheticRows(self.rows[split], self.seq_len, self.vocab_size)


def synthetic(seq_len: int, vocab_size: int = 30_522) -> SyntheticData:
    """Data of this length and vocabulary (at least 1,000 ids)."""
    return SyntheticData(
        path=Path("synthetic"),
        seq_len=seq_len,
        rows={"train": ROWS, "valid": ROWS},
        vocab_size=vocab_size,
        special=SPECIAL,
        tokenizer_hash="",
        fingerprint="",
        info={},
    )


class SyntheticRows:
    """Like `data.source.Source`: [CLS] words [SEP] words [SEP], no padding, every other token begins a word."""

    def __init__(self, count: int, seq_len: int, vocab_size: int) -> None:
        self._count, self._seq_len, self._vocab_size = count, seq_len, vocab_size

    def __len__(self) -> int:
        return self._count

    def rows(self, numbers_N: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of these numbers, each field int32 [N, L]."""
        length, half = self._seq_len, self._seq_len // 2
        draw = np.random.default_rng([int(numbers_N[0]), len(numbers_N)])
        shape = (len(numbers_N), length)
        ids_NxL = draw.integers(FIRST_WORD, self._vocab_size, shape, dtype=np.int32)
        ids_NxL[:, 0] = SPECIAL.cls
        ids_NxL[:, [half, -1]] = SPECIAL.sep
        at_L = np.arange(length, dtype=np.int32)
        fields = {
            "types": at_L > half,
            "docs": at_L >= 0,
            "word_starts": (at_L % 2 == 0) | (at_L == half) | (at_L == length - 1),
            "positions": at_L,
        }
        wide = {name: np.tile(x.astype(np.int32), (shape[0], 1)) for name, x in fields.items()}
        return {"ids": ids_NxL, **wide}
