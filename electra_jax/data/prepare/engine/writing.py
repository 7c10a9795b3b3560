"""The last round: the rows of a portion, in the order of the text, as shards of their own."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from electra_jax.data.prepare import corpus as corpora
from electra_jax.data.prepare import heldout, shards, work
from electra_jax.data.prepare.engine import choice, copies, plan, store
from electra_jax.spec import UserError
from electra_jax.text.sources import documents


@dataclasses.dataclass(frozen=True)
class Write:
    """The shards of a portion: `firsts` are the numbers in their files of the first documents of its parts."""

    portion: int
    firsts: tuple[int, ...]
    counts: tuple[int, ...]
    rule: heldout.HeldOut | None

    @property
    def name(self) -> str:
        """Of the outcome: shards, counts by split, and the documents read."""
        return f"written-{self.portion:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> dict[str, Any]:
        """Holds a block of text and its rows at a time, and 16 bytes for each row of the shard that is open."""
        counts = {split: collections.Counter[str]() for split in ("train", "valid")}
        with pieces.scratch() as folder:
            writers = {
                split: shards.Shards(folder, split, setting.rows_per_shard) for split in counts
            }
            maker = setting.maker()
            for block in self._blocks(setting, pieces, counts):
                made = maker(block)
                for split, writer in writers.items():
                    writer.write(made.records[split])
                    counts[split].update(made.counts[split])
            written = [shard for writer in writers.values() for shard in writer.finish()]
            for number, shard in enumerate(written):
                piece = f"rows-{self.portion:05d}-{number:05d}"
                pieces.put(folder / shard["name"], piece)
                shard["name"] = piece
        return {"shards": written, "counts": counts}

    def _blocks(
        self,
        setting: plan.Setting,
        pieces: store.Store,
        counts: dict[str, "collections.Counter[str]"],
    ) -> Iterator[work.Block]:
        left_out = copies.found(setting, pieces, self.portion)
        for number, first, count in zip(
            setting.portions[self.portion], self.firsts, self.counts, strict=True
        ):
            file = setting.parts[number].file
            split = "train" if file < len(setting.corpus.paths) else "valid"
            counts[split]["duplicates"] += sum(plan.part_of(key) == number for key in left_out)
            skipped = documents.Skipped()
            found = self._pieces(setting, pieces, number, first, count, left_out, skipped)
            yield from corpora.in_blocks(file, found, skipped, setting.corpus.block_size)

    def _pieces(
        self,
        setting: plan.Setting,
        pieces: store.Store,
        number: int,
        first: int,
        count: int,
        left_out: set[int],
        skipped: documents.Skipped,
    ) -> Iterator[heldout.Piece]:
        """The documents of a part but the copies, cut as the rule says."""
        file = setting.parts[number].file
        drawn = self.rule is not None and setting.drawn_from(file)
        flags = iter(choice.flags(setting, pieces, number).tolist() if drawn else ())
        place = -1
        for place, document in enumerate(setting.documents(number, skipped)):
            if plan.key(number, place) in left_out:
                continue
            if self.rule is not None and drawn:
                yield from self.rule.cut(first + place, document, flags)
            else:
                valid = file >= len(setting.corpus.paths)
                yield heldout.Piece(first + place, 0, document, valid)
        if place + 1 != count:
            raise UserError(
                f"input {setting.path(setting.parts[number])} was replaced or written to while it was read: it had "
                f"{count} documents there, then {place + 1}. Run the command again when the file is complete"
            )
