"""The inputs of a preparation: read in blocks by any process, described, the same files at the end as at the start."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from electra_jax.data.prepare import heldout, work
from electra_jax.spec import UserError
from electra_jax.text.sources import datasets, documents, stored

# Characters dealt to a worker at a time: some tenths of a second of work, so that dealing costs
# nothing beside it, and few megabytes in flight.
_BLOCK = 2**20

# (input number, document number) of documents that are left out.
Dropped = frozenset[tuple[int, int]]

# What stands for the bytes of files: changes when one is exchanged or written to.
Identities = dict[str, stored.Identity]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The documents of a preparation, those of the held-out inputs last.

    `held_out` says what is held out of `paths` (None: nothing); `dropped` documents are left out. A block
    holds `block_size` characters, or one document of more.
    """

    paths: Sequence[str]
    valid_paths: Sequence[str] = ()
    text_key: str = "text"
    join_lines: bool = False
    held_out: heldout.HeldOut | None = None
    dropped: Dropped = frozenset()
    block_size: int = dataclasses.field(default_factory=lambda: _BLOCK)

    def __len__(self) -> int:
        return len(self.paths) + len(self.valid_paths)

    @property
    def stored(self) -> int:
        """The bytes stored under all inputs."""
        return documents.size([*self.paths, *self.valid_paths])

    def runs(self) -> list[range]:
        """The inputs in runs that are read at one go: a large one by itself, small ones together."""
        found: list[range] = []
        room = 0
        for file, path in enumerate([*self.paths, *self.valid_paths]):
            stored = self.block_size if datasets.is_name(path) else documents.size([path])
            if not found or stored > room:
                found.append(range(file, file))
                room = max(stored, self.block_size)
            found[-1] = range(found[-1].start, file + 1)
            room -= stored
        return found

    def numbered(
        self,
        file: int,
        consumed: documents.Consumed | None = None,
        skipped: documents.Skipped | None = None,
    ) -> heldout.Numbered:
        """(number, document) of one input's documents but the dropped, in order."""
        found = documents.read(
            [*self.paths, *self.valid_paths][file],
            self.text_key,
            consumed=consumed,
            join_lines=self.join_lines,
            skipped=skipped,
        )
        return ((n, document) for n, document in enumerate(found) if (file, n) not in self.dropped)

    def blocks(self, file: int, consumed: documents.Consumed | None = None) -> Iterator[work.Block]:
        """The documents of one input but the dropped, in blocks.

        `consumed` is told the stored bytes read. Raises UserError where the input's content is at fault.
        """
        skipped = documents.Skipped()
        pieces = self._pieces(file, self.numbered(file, consumed, skipped))
        yield from in_blocks(file, pieces, skipped, self.block_size)

    def _pieces(self, file: int, numbered: heldout.Numbered) -> Iterator[heldout.Piece]:
        if file < len(self.paths) and self.held_out is not None:
            return self.held_out.pieces(file, numbered)
        valid = file >= len(self.paths)
        return (heldout.Piece(number, 0, document, valid) for number, document in numbered)

    def identities(self) -> Identities:
        """What stands for the bytes of every file that is read."""
        names = [
            name
            for path in [*self.paths, *self.valid_paths]
            for name in (datasets.files(path) if datasets.is_name(path) else [path])
        ]
        return stored.identities(names)

    def check_unchanged(self, before: Identities) -> None:
        """Raises UserError when a file is not what it was, for then nobody knows which bytes were read."""
        now = stored.identities(before)
        for path, identity in before.items():
            if now[path] != identity:
                raise UserError(
                    f"input {path} was replaced or written to while it was read; nothing was written. "
                    "Run the command again when the file is complete"
                )

    def describe_one(self, file: int) -> dict[str, Any]:
        """Name, size and SHA-256 of one input."""
        return describe([*self.paths, *self.valid_paths][file], self.text_key)


def in_blocks(
    file: int,
    pieces: Iterable[heldout.Piece],
    skipped: documents.Skipped,
    block_size: int | None = None,
) -> Iterator[work.Block]:
    """The pieces of an input in blocks of so many characters, with what was `skipped` when all were read."""
    block, size = _new(file), 0
    for piece in pieces:
        if size >= (block_size or _BLOCK):
            yield block
            block, size = _new(file), 0
        block.numbers.append(piece.number)
        block.parts.append(piece.part)
        block.documents.append(piece.document)
        block.held_out.append(piece.held_out)
        size += sum(map(len, piece.document))
    if block.documents or skipped:
        yield block._replace(skipped=dict(skipped))


def _new(file: int) -> work.Block:
    return work.Block(file, [], [], [], [], {})


def describe(path: str, text_key: str) -> dict[str, Any]:
    """A file's size and hash are those of its bytes as stored, a data set's those of its texts. The
    folder it lies in is left out: it does not change the data."""
    digest, size = hashlib.sha256(), 0
    if not datasets.is_name(path):
        with stored.opened(path) as raw:
            digest = hashlib.file_digest(raw, "sha256")  # type: ignore[arg-type]
            size = raw.tell()
        return {"name": os.path.basename(path), "bytes": size, "sha256": digest.hexdigest()}
    for document in documents.read(path, text_key):
        text = "".join(f"{line}\n" for line in [*document, ""]).encode()
        digest.update(text)
        size += len(text)
    prefix, _, rest = path.partition(":")
    name = f"{prefix}:{os.path.basename(rest.rstrip('/'))}"
    return {"name": name, "bytes": size, "sha256": digest.hexdigest()}
