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
from typing import Any, NamedTuple

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
_MOST_AHEAD = 2**25  # bytes of marks that came before their turn


def check(mode: str) -> None:
    """UserError for an unknown mode, or where the library it needs is missing."""
    if mode not in MODES:
        raise UserError(f"unknown kind of duplicates {mode!r}; expected one of {', '.join(MODES)}")
    if mode == "near":
        _library()


class Signed(NamedTuple):
    """What the copies of a document have in common: for each of some documents of input `file` a row of `marks`."""

    file: int
    numbers_D: np.ndarray
    marks_DxP: np.ndarray


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
    sign, find = {"exact": (sign_exactly, _exact), "near": (sign_nearly, _near)}[mode]
    if workers == 1:
        blocks = (block for file in range(len(corpus)) for block in corpus.blocks(file, consumed))
        return frozenset(find(sign(block) for block in blocks if block.documents))
    with (
        tempfile.TemporaryDirectory(dir=folder) as spool,
        team.Team(workers, Signer, (corpus, Path(spool), sign)) as members,
    ):
        dealer = deal.Dealer(members, corpus.runs(), _MOST_AHEAD, consumed)
        return frozenset(find(one for _, _, signed in dealer.results() for one in signed))


class Signer(pieces.Reader):
    """A member of a team: signs the documents of pieces."""

    def __init__(self, corpus: Corpus, folder: Path, sign: Callable[[work.Block], Signed]) -> None:
        super().__init__(corpus, folder)
        self._sign = sign

    def work(self, run: int, piece: int) -> deal.Done:
        """The documents of a piece signed."""
        made = [self._sign(block) for block in self.take(run, piece) if block.documents]
        return deal.Done(made, sum(one.marks_DxP.nbytes for one in made))


def sign_exactly(block: work.Block) -> Signed:
    """Marks that documents share which are equal in words, [D, 16] bytes."""
    digests = b"".join(
        hashlib.blake2b(_plain(document).encode(), digest_size=_DIGEST).digest()
        for document in block.documents
    )
    return _signed(block, np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST))


def sign_nearly(block: work.Block) -> Signed:
    """The MinHash values of a block's documents, [D, permutations]."""
    library = _library()
    empty = library.MinHash(**_MINHASH)
    rows = []
    for document in block.documents:
        signature = library.MinHash(**_MINHASH, permutations=empty.permutations)
        signature.update_batch(_shingles(_plain(document)))
        rows.append(signature.hashvalues)
    return _signed(block, np.stack(rows))


def _exact(signed: Iterator[Signed]) -> Iterator[tuple[int, int]]:
    seen: set[bytes] = set()
    for file, numbers_D, marks_DxP in signed:
        for number, mark_P in zip(numbers_D.tolist(), marks_DxP, strict=True):
            digest = mark_P.tobytes()
            if digest in seen:
                yield file, number
            seen.add(digest)


def _near(signed: Iterator[Signed]) -> Iterator[tuple[int, int]]:
    library = _library()
    index = library.MinHashLSH(THRESHOLD, PERMUTATIONS)
    kept: dict[tuple[int, int], np.ndarray] = {}
    for file, numbers_D, values_DxP in signed:
        for number, values_P in zip(numbers_D.tolist(), values_DxP, strict=True):
            key = file, number
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


def _signed(block: work.Block, marks_DxP: np.ndarray) -> Signed:
    return Signed(block.file, np.array(block.numbers, np.int64), marks_DxP)


def _library() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise UserError(
            "near duplicates are found by datasketch: pip install 'electra_jax[dedup]'"
        ) from error
    return datasketch
