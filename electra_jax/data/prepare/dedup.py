"""Which documents of a corpus are copies of earlier ones: exact ones, or nearly the same text.

Exact: equal after lower-casing and folding of white space. Near: the Jaccard similarity of their
sets of five-word shingles is at least 0.8 (the threshold of Lee et al. 2022, "Deduplicating Training
Data Makes Language Models Better"), as MinHash estimates it from 128 permutations; candidates
come from locality-sensitive hashing. Either way the first of a group in the order of the inputs
stays, so the held-out inputs, which come last, lose what the training inputs hold as well.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.prepare import deal, pieces, team, work
from electra_jax.data.prepare.corpus import Corpus, Dropped
from electra_jax.spec import UserError
from electra_jax.text.borders import between_spaces_and_ideographs
from electra_jax.text.sources import documents

MODES = ("exact", "near")
THRESHOLD, SHINGLE, PERMUTATIONS = 0.8, 5, 128
# Named, so that another version of the library finds the same.
_MINHASH = {"num_perm": PERMUTATIONS, "seed": 1, "scheme": "affine32"}
_DIGEST = 16  # bytes
_MOST_AHEAD = 2**25  # bytes of signatures that came before their turn


def check(mode: str) -> None:
    """UserError for an unknown mode, or where the library it needs is missing."""
    if mode not in MODES:
        raise UserError(f"unknown kind of duplicates {mode!r}; expected one of {', '.join(MODES)}")
    if mode == "near":
        _library()


def duplicates(
    corpus: Corpus,
    mode: str,
    workers: int,
    consumed: documents.Consumed,
    folder: Path | None = None,
) -> Dropped:
    """(input number, document number) of every copy; the same for any number of `workers`.

    Workers pass text in files of `folder` (None: that for temporary files). Holds in memory 98 bytes
    for an exact document, for a near one about 4.4 kB.
    """
    sign: Callable[[work.Block], Any] = sign_exactly if mode == "exact" else sign_nearly
    find: Callable[[Iterator[Any]], Iterator[tuple[int, int]]]
    find = _exact if mode == "exact" else near
    if workers == 1:
        blocks = (block for file in range(len(corpus)) for block in corpus.blocks(file, consumed))
        return frozenset(find(sign(block) for block in blocks if block.documents))
    with (
        tempfile.TemporaryDirectory(dir=folder) as spool,
        team.Team(workers, Signer, (corpus, Path(spool), mode)) as members,
    ):
        dealer = deal.Dealer(members, corpus.runs(), _MOST_AHEAD, consumed)
        return frozenset(find(_unpacked(one) for _, _, made in dealer.results() for one in made))


class Signer(pieces.Reader):
    """A member of a team: signs the documents of pieces."""

    def __init__(self, corpus: Corpus, folder: Path, mode: str) -> None:
        super().__init__(corpus, folder)
        self._exact = mode == "exact"

    def make(self, run: int, piece: int) -> deal.Done:
        """For each block of a piece its input, the numbers of its documents and what `sign_...` gives, as arrays."""
        made = []
        for block in self.take(run, piece):
            if block.documents:
                marks = self._marks(block)
                made.append((block.file, np.array(block.numbers, np.int64), marks))
        return deal.Done(made, sum(marks.nbytes for _, _, marks in made))

    def _marks(self, block: work.Block) -> np.ndarray:
        if self._exact:
            return np.array(sign_exactly(block)[1], f"V{_DIGEST}")
        return sign_nearly(block)[1]


def _unpacked(made: tuple[int, np.ndarray, np.ndarray]) -> tuple[work.Block, Any]:
    """What `sign_...` gave before a Signer made arrays of it."""
    file, numbers_D, marks = made
    block = work.Block(file, numbers_D.tolist(), [], [], [], {})
    return block, marks.tolist() if marks.dtype.kind == "V" else marks


def sign_exactly(block: work.Block) -> tuple[work.Block, list[bytes]]:
    """What equal documents of a block have in common; the block without its texts."""
    return _bare(block), [
        hashlib.blake2b(_plain(document).encode(), digest_size=_DIGEST).digest()
        for document in block.documents
    ]


def sign_nearly(block: work.Block) -> tuple[work.Block, np.ndarray]:
    """The MinHash values of a block's documents, [D, permutations]; the block without its texts."""
    library = _library()
    empty = library.MinHash(**_MINHASH)
    rows = []
    for document in block.documents:
        signature = library.MinHash(**_MINHASH, permutations=empty.permutations)
        signature.update_batch(_shingles(_plain(document)))
        rows.append(signature.hashvalues)
    return _bare(block), np.stack(rows)


def _exact(signed: Iterator[tuple[work.Block, list[bytes]]]) -> Iterator[tuple[int, int]]:
    seen: set[bytes] = set()
    for block, digests in signed:
        for number, digest in zip(block.numbers, digests, strict=True):
            if digest in seen:
                yield block.file, number
            seen.add(digest)


def bands(values_DxP: np.ndarray) -> Iterator[np.ndarray]:
    """For each band of MinHash values a number for every document, uint64 [D]: the same where the values are.

    Documents that share none are never compared by `near`.
    """
    index = _library().MinHashLSH(THRESHOLD, PERMUTATIONS)
    for start, end in index.hashranges:
        numbers_D = np.full(len(values_DxP), start + 1, np.uint64)
        for values_D in values_DxP[:, start:end].T.astype(np.uint64):
            numbers_D = (numbers_D ^ values_D) * np.uint64(0x9E3779B97F4A7C15)
            numbers_D ^= numbers_D >> np.uint64(29)
        yield numbers_D


def near(signed: Iterator[tuple[work.Block, np.ndarray]]) -> Iterator[tuple[int, int]]:
    """(input, number) of the documents of blocks, by their MinHash values, that are nearly the same as one kept."""
    library = _library()
    index = library.MinHashLSH(THRESHOLD, PERMUTATIONS)
    kept: dict[tuple[int, int], np.ndarray] = {}
    for block, values_DxP in signed:
        for number, values_P in zip(block.numbers, values_DxP, strict=True):
            key = block.file, number
            signature = library.MinHash(**_MINHASH, hashvalues=values_P)
            # Candidates share a band of values; the estimate itself decides.
            if any(np.mean(kept[c] == values_P) >= THRESHOLD for c in index.query(signature)):
                yield key
            else:
                kept[key] = values_P
                index.insert(key, signature)


def _plain(document: Sequence[str]) -> str:
    return " ".join(" ".join(document).lower().split())


def _shingles(text: str) -> list[bytes]:
    """Every run of five words, an ideograph being a word; all of a shorter text."""
    words = between_spaces_and_ideographs(text)
    runs = range(max(1, len(words) - SHINGLE + 1))
    return sorted({" ".join(words[i : i + SHINGLE]).encode() for i in runs})


def _bare(block: work.Block) -> work.Block:
    return block._replace(documents=[])


def _library() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise UserError(
            "near duplicates are found by datasketch: pip install 'electra_jax[dedup]'"
        ) from error
    return datasketch
