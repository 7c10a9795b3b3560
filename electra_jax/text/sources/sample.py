"""The paragraphs a vocabulary is trained on: all, or an even, repeatable sample of them."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from electra_jax.text.sources import documents


class Paragraphs:
    """The paragraphs of `paths` in order; may be iterated more than once.

    With `sample_bytes` a sample of that size: drawn by a hash of the paragraph's number, evenly
    over the whole corpus, which is read once for it, and held in memory. The same corpus gives the
    same sample.
    """

    def __init__(self, paths: Sequence[str], text_key: str, sample_bytes: int | None = None):
        self._paths, self._text_key = paths, text_key
        self._held = None if sample_bytes is None else _sample(self._read(), sample_bytes)

    def __iter__(self) -> Iterator[str]:
        return self._read() if self._held is None else iter(self._held)

    def _read(self) -> Iterator[str]:
        total = documents.size(self._paths) or None
        with tqdm(total=total, desc="reading", unit="B", unit_scale=True, disable=None) as bar:
            for path in self._paths:
                for document in documents.read(path, self._text_key, consumed=bar.update):
                    yield from document


def _sample(texts: Iterator[str], sample_bytes: int) -> list[str]:
    """The texts of the lowest hashes whose UTF-8 bytes together are at most `sample_bytes`."""
    kept: list[tuple[int, int, str, int]] = []  # a heap: the highest hash first
    size = 0
    for number, text in enumerate(texts):
        digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8).digest()
        rank = -int.from_bytes(digest, "little")
        if kept and size >= sample_bytes and rank < kept[0][0]:
            continue
        length = len(text.encode("utf-8", "surrogatepass"))
        heapq.heappush(kept, (rank, number, text, length))
        size += length
        while size > sample_bytes and len(kept) > 1:
            size -= heapq.heappop(kept)[3]
    return [text for _, _, text, _ in sorted(kept, key=lambda entry: entry[1])]
