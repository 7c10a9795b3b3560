"""Rounds that find the documents which copy an earlier one: the same ones that `dedup.duplicates` finds.

Exact copies meet where their digests are dealt. Near ones share a band of MinHash values: documents that such
bands connect are looked at together, in their order, and of the others none can be a copy.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from electra_jax.data.prepare import dedup, work
from electra_jax.data.prepare.engine import plan, store, survey

KEYS = np.dtype(plan.KEY)
_LINK = np.dtype([("one", plan.KEY), ("other", plan.KEY)])
_MEMBER = np.dtype([("group", plan.KEY), ("key", plan.KEY)])

# Documents whose MinHash values are read at a time.
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Exact:
    """Of documents with the same digest, all but the first, for one place of digests."""

    place: int

    @property
    def name(self) -> str:
        """Of the outcome: how many."""
        return f"found-{self.place:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> int:
        """Holds the digests of a place: 24 bytes a document, and as much again to sort them."""
        rows = _gathered(setting, pieces, self.place, survey.SIGNED)
        rows = rows[np.lexsort((rows["key"], rows["low"], rows["high"]))]
        same = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
        return _leave(setting, pieces, self.place, rows["key"][1:][same])


@dataclasses.dataclass(frozen=True)
class Links:
    """Documents that share a band, each linked to the first of them, for one place of bands."""

    place: int

    @property
    def name(self) -> str:
        """Of the outcome: how many."""
        return f"linked-{self.place:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> int:
        """Holds the bands of a place: 16 bytes for each of a document, and as much again to sort them."""
        rows = _gathered(setting, pieces, self.place, survey.BAND)
        rows = rows[np.lexsort((rows["key"], rows["band"]))]
        same = np.concatenate(([False], rows["band"][1:] == rows["band"][:-1]))
        firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
        links = np.empty(int(same.sum()), _LINK)
        links["one"], links["other"] = rows["key"][firsts[same]], rows["key"][same]
        pieces.write(f"links-{self.place:05d}", np.unique(links).tobytes())
        return len(links)


@dataclasses.dataclass(frozen=True)
class Connect:
    """Groups of documents that links connect, dealt to places."""

    @property
    def name(self) -> str:
        """Of the outcome: how many documents are in a group."""
        return "connected"

    def run(self, setting: plan.Setting, pieces: store.Store) -> int:
        """Holds all links in one process: some 50 bytes for each, of documents that have any."""
        links = np.concatenate(
            [
                np.frombuffer(pieces.read(f"links-{place:05d}"), _LINK)
                for place in range(setting.places)
            ]
        )
        keys, numbers = np.unique(
            np.concatenate((links["one"], links["other"])), return_inverse=True
        )
        ones, others = numbers[: len(links)], numbers[len(links) :]
        members = np.empty(len(keys), _MEMBER)
        members["group"], members["key"] = keys[connected(len(keys), ones, others)], keys
        # By a product: groups whose first documents are neighbours go to different places.
        places = (members["group"] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)) % np.uint64(
            setting.places
        )
        store.deal(pieces, "groups", members, places, setting.places)
        return len(keys)


@dataclasses.dataclass(frozen=True)
class Near:
    """Of documents that are nearly the same, all but those kept first, for one place of groups."""

    place: int

    @property
    def name(self) -> str:
        """Of the outcome: how many."""
        return f"found-{self.place:05d}"

    def run(self, setting: plan.Setting, pieces: store.Store) -> int:
        """Holds what `dedup.near` holds of the documents in these groups."""
        members = store.dealt(pieces, "groups", self.place, setting.places, _MEMBER)
        signed = _signed(setting, pieces, np.sort(members["key"]))
        found = [plan.key(part, place) for part, place in dedup.near(signed)]
        return _leave(setting, pieces, self.place, np.array(found, KEYS))


def found(setting: plan.Setting, pieces: store.Store, portion: int) -> set[int]:
    """The keys of the documents of a portion that are left out."""
    if setting.dedup is None:
        return set()
    count = len(setting.portions)
    return {
        key
        for place in range(setting.places)
        for key in store.dealt(pieces, f"copies-{place:05d}", portion, count, KEYS).tolist()
    }


def connected(count: int, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `count` numbers the least that a chain of links (ones[i], others[i]) leads to."""
    least = np.arange(count)
    while True:
        before = least.copy()
        lower = np.minimum(least[ones], least[others])
        # The ends of a link, and what stood for them so far, get the lesser of the two.
        for ends in (ones, others, before[ones], before[others]):
            np.minimum.at(least, ends, lower)
        least = least[least]
        if np.array_equal(least, before):
            return least


def _gathered(
    setting: plan.Setting, pieces: store.Store, place: int, dtype: np.dtype
) -> np.ndarray:
    """What all portions have dealt to a place."""
    return np.concatenate(
        [
            store.dealt(pieces, f"signed-{portion:05d}", place, setting.places, dtype)
            for portion in range(len(setting.portions))
        ]
    )


def _leave(setting: plan.Setting, pieces: store.Store, place: int, keys: np.ndarray) -> int:
    """Deals the keys of copies to their portions."""
    keys = np.sort(keys)
    portion_of = setting.portion_of
    portions = np.array([portion_of[plan.part_of(key)] for key in keys.tolist()], np.int64)
    store.deal(pieces, f"copies-{place:05d}", keys, portions, len(setting.portions))
    return len(keys)


def _signed(
    setting: plan.Setting, pieces: store.Store, keys: np.ndarray
) -> Iterator[tuple[work.Block, np.ndarray]]:
    """The MinHash values of documents in the order of their keys, a part's as a block's."""
    size = survey.SIGNATURE.itemsize
    for part, run in itertools.groupby(keys.tolist(), key=plan.part_of):
        portion = setting.portion_of[part]
        counts = plan.outcome(pieces, survey.Survey(portion))
        before = sum(counts[: setting.portions[portion].index(part)])
        name = f"signatures-{portion:05d}"
        places = [plan.place_of(key) for key in run]
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            data = b"".join(
                pieces.read(name, (before + first) * size, (before + last + 1) * size)
                for first, last in _runs(some)
            )
            block = work.Block(part, some, [], [], [], {})
            yield block, np.frombuffer(data, "<u4").reshape(-1, dedup.PERMUTATIONS)


def _runs(places: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of places that follow each other."""
    for _, run in itertools.groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        found = [place for _, place in run]
        yield found[0], found[-1]
