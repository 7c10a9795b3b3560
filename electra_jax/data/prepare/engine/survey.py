"""The first round: inputs hashed, documents counted, measured and signed."""

import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from electra_jax.data.prepare import corpus as corpora
from electra_jax.data.prepare import dedup, heldout, work
from electra_jax.data.prepare.engine import plan, store
from electra_jax.text.sources import documents

# A document's digest, in two numbers, and a band of its MinHash values, in one, each with the document's key.
SIGNED = np.dtype([("high", "<u8"), ("low", "<u8"), ("key", plan.KEY)])
BAND = np.dtype([("band", "<u8"), ("key", plan.KEY)])
SIGNATURE = np.dtype(("<u4", dedup.PERMUTATIONS))


@dataclasses.dataclass(frozen=True)
class Describe:
    """Name, size and hash of each of these inputs."""

    files: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the outcome: a list, in the order of `files`."""
        return f"described-{self.files[0]:07d}"

    def run(self, setting: plan.Setting, _: store.Store) -> list[dict[str, Any]]:
        """Reads them once more: a hash is of a whole file."""
        paths = [*setting.corpus.paths, *setting.corpus.valid_paths]
        return [corpora.describe(paths[file], setting.corpus.text_key) for file in self.files]


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the documents of a portion are: how many, the sizes of their sections, their signatures."""

    portion: int

    @property
    def name(self) -> str:
        """Of the outcome: documents by part."""
        return f"survey-{self.portion:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> list[int]:
        """Reads the portion; holds its documents' numbers, and one block of its text at a time."""
        signer = _SIGNERS[setting.dedup](setting, pieces, self.portion)
        counts, arrays = [], {}
        with signer:
            for number in setting.portions[self.portion]:
                sizes: list[int] = []
                sections: list[int] = []
                place = 0
                for block in _blocks(setting, number, sizes, sections):
                    keys = [plan.key(number, place + n) for n in range(len(block.documents))]
                    signer.sign(block, np.array(keys, plan.KEY))
                    place += len(block.documents)
                counts.append(place)
                arrays[f"sizes{number}"] = np.array(sizes, np.int64)
                arrays[f"sections{number}"] = np.array(sections, np.int64)
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        pieces.write(f"sizes-{self.portion:05d}", held.getvalue())
        return counts


def sized(
    pieces: store.Store, portion: int, numbers: Iterable[int]
) -> Iterator[tuple[int, list[list[int]]]]:
    """For each of these parts of a portion the sizes of its documents' sections."""
    with np.load(io.BytesIO(pieces.read(f"sizes-{portion:05d}")), allow_pickle=False) as found:
        for number in numbers:
            ends = np.cumsum(found[f"sections{number}"])[:-1]
            sizes = np.split(found[f"sizes{number}"], ends)  # of no document, one that is empty
            yield number, [one.tolist() for one in sizes if len(one)]


def _blocks(
    setting: plan.Setting, number: int, sizes: list[int], sections: list[int]
) -> Iterator[work.Block]:
    """The documents of a part in blocks; their sections are noted where the rule draws from them."""
    part = setting.parts[number]
    rule = setting.rule if setting.drawn_from(part.file) else None

    def noted() -> Iterator[heldout.Piece]:
        for place, document in enumerate(setting.documents(number)):
            if rule is not None:
                own = rule.sizes(document)
                sizes.extend(own)
                sections.append(len(own))
            yield heldout.Piece(place, 0, document, False)

    return corpora.in_blocks(part.file, noted(), documents.Skipped())


class _Unsigned:
    """Signs nothing: all documents are kept."""

    def __init__(self, setting: plan.Setting, pieces: store.Store, portion: int) -> None:
        self._setting, self._pieces, self._portion = setting, pieces, portion

    def __enter__(self) -> "_Unsigned":
        return self

    def __exit__(self, failed: type | None, *_: object) -> None:
        if failed is None:
            self.finish()

    def sign(self, block: work.Block, keys_D: np.ndarray) -> None:
        """Takes the documents of a block, by these keys."""

    def finish(self) -> None:
        """Leaves what was signed."""


class _Digests(_Unsigned):
    """Leaves the digest of every document at the place of its value."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rows: list[np.ndarray] = [np.empty(0, SIGNED)]

    def sign(self, block: work.Block, keys_D: np.ndarray) -> None:
        _, digests = dedup.sign_exactly(block)
        rows = np.empty(len(digests), SIGNED)
        found = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        rows["high"], rows["low"], rows["key"] = found[:, 0], found[:, 1], keys_D
        self._rows.append(rows)

    def finish(self) -> None:
        rows, count = np.concatenate(self._rows), self._setting.places
        name = f"signed-{self._portion:05d}"
        store.deal(self._pieces, name, rows, rows["high"] % count, count)


class _Signatures(_Unsigned):
    """Leaves the MinHash values of all documents, in their order, and their bands at the places of their values."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rows: list[np.ndarray] = [np.empty(0, BAND)]
        self._scratch = self._pieces.scratch()

    def __enter__(self) -> "_Signatures":
        self._path = self._scratch.__enter__() / "signatures"
        self._file = open(self._path, "wb")
        return self

    def __exit__(self, failed: type | None, *rest: Any) -> None:
        try:
            super().__exit__(failed, *rest)
        finally:
            self._file.close()
            self._scratch.__exit__(failed, *rest)

    def sign(self, block: work.Block, keys_D: np.ndarray) -> None:
        _, values_DxP = dedup.sign_nearly(block)
        self._file.write(values_DxP.astype("<u4").tobytes())
        for bands_D in dedup.bands(values_DxP):
            rows = np.empty(len(bands_D), BAND)
            rows["band"], rows["key"] = bands_D, keys_D
            self._rows.append(rows)

    def finish(self) -> None:
        self._file.close()
        self._pieces.put(self._path, f"signatures-{self._portion:05d}")
        rows, count = np.concatenate(self._rows), self._setting.places
        name = f"signed-{self._portion:05d}"
        store.deal(self._pieces, name, rows, rows["band"] % count, count)


_SIGNERS: dict[str | None, type[_Unsigned]] = {
    None: _Unsigned,
    "exact": _Digests,
    "near": _Signatures,
}


def groups_of_files(sizes: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Numbers of inputs in runs of about so many bytes."""
    run: list[int] = []
    size = 0
    for file, own in enumerate(sizes):
        if run and size + own > most:
            yield tuple(run)
            run, size = [], 0
        run.append(file)
        size += own
    if run:
        yield tuple(run)
