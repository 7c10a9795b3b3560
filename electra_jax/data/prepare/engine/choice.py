"""The round that says what is held out: the rule of `heldout.py` over sizes alone, an input at a time."""

import bisect
import dataclasses
import io
import itertools
from collections.abc import Iterator

import numpy as np

from electra_jax.data.prepare import heldout
from electra_jax.data.prepare.engine import copies, plan, store, survey


@dataclasses.dataclass(frozen=True)
class Choose:
    """Which sections are held out, by the `rule`, of the inputs that begin in a portion."""

    portion: int
    rule: heldout.HeldOut

    @property
    def name(self) -> str:
        """Of the outcome: how many sections."""
        return f"chosen-{self.portion:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> int:
        """Holds the sizes of one portion, and a flag for each section of the inputs."""
        arrays: dict[str, np.ndarray] = {}
        documents = Documents(setting, pieces)
        for file, parts in setting.parts_of.items():
            if setting.portion_of[parts[0]] == self.portion and setting.drawn_from(file):
                flags: dict[int, list[bool]] = {part: [] for part in parts}
                firsts = documents.firsts(file)
                for number, drawn in self.rule.drawn(file, documents.sized(file)):
                    flags[parts[bisect.bisect_right(firsts, number) - 1]] += drawn
                arrays.update({str(part): np.array(found, bool) for part, found in flags.items()})
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        pieces.write(f"flags-{self.portion:05d}", held.getvalue())
        return int(sum(found.sum() for found in arrays.values()))


def flags(setting: plan.Setting, pieces: store.Store, part: int) -> np.ndarray:
    """Whether the sections of a part's documents, copies left out, are held out: bool [sections]."""
    portion = setting.portion_of[setting.parts_of[setting.parts[part].file][0]]
    with np.load(io.BytesIO(pieces.read(f"flags-{portion:05d}")), allow_pickle=False) as found:
        return found[str(part)]


class Documents:
    """The sizes of documents as the first round left them, a portion's at a time."""

    def __init__(self, setting: plan.Setting, pieces: store.Store) -> None:
        self._setting, self._pieces = setting, pieces
        self._portion, self._copies, self._counts = -1, frozenset[int](), dict[int, int]()

    def firsts(self, file: int) -> list[int]:
        """The number in the file of the first document of each of its parts."""
        counts = []
        for part in self._setting.parts_of[file]:
            self._load(self._setting.portion_of[part])
            counts.append(self._counts[part])
        return [0, *itertools.accumulate(counts)][:-1]

    def sized(self, file: int) -> Iterator[tuple[int, list[int]]]:
        """(number, bytes of the sections) of an input's documents but the copies."""
        setting, first = self._setting, 0
        parts = setting.parts_of[file]
        for portion, run in itertools.groupby(parts, key=setting.portion_of.__getitem__):
            self._load(portion)
            for part, sizes in survey.sized(self._pieces, portion, run):
                for place, own in enumerate(sizes):
                    if plan.key(part, place) not in self._copies:
                        yield first + place, own
                first += len(sizes)

    def _load(self, portion: int) -> None:
        if portion != self._portion:
            self._portion = portion
            self._copies = frozenset(copies.found(self._setting, self._pieces, portion))
            counts = plan.outcome(self._pieces, survey.Survey(portion))
            self._counts = dict(zip(self._setting.portions[portion], counts, strict=True))
