"""What all tasks of a preparation know: the corpus, its inputs in ranges, and ranges in portions, each a worker's task.

A document's key is the number of its range and its place there: keys are ordered as the text is.
"""

import concurrent.futures
import dataclasses
import functools
import json
import pickle
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from electra_jax.data.prepare import heldout, shards, work
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.data.prepare.engine.store import Store
from electra_jax.text.sources import documents, ranges

# Stored bytes of a portion: as many as give a shard, fewer where a small corpus would else keep few workers busy.
_LEAST, _FEW = 2**22, 64

# Stored bytes for each place to which signatures are dealt: what a worker holds of them at a time.
_BYTES_A_PLACE = 2**32

_SETTING = "setting"
_AT_ONCE = 16  # openings of inputs that are looked at, of which each is an answer of a bucket
KEY = "<u8"
_opened = threading.local()
_PLACES = 32  # bits of a key for the document's place in its range


class Part(NamedTuple):
    """A range of input number `file`."""

    file: int
    range: ranges.Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """`portions` are lists of numbers of `parts`, in their order, of about `longest` stored bytes.

    Signatures are dealt to so many `places`. `rule` is what would be held out of a large corpus.
    """

    corpus: Corpus
    job: work.Job
    parts: Sequence[Part]
    portions: Sequence[Sequence[int]]
    longest: int
    places: int
    dedup: str | None
    rule: heldout.HeldOut | None
    rows_per_shard: int

    def path(self, part: Part) -> str:
        """The input that a part is of."""
        return [*self.corpus.paths, *self.corpus.valid_paths][part.file]

    def documents(
        self, number: int, skipped: documents.Skipped | None = None
    ) -> Iterator[documents.Document]:
        """The documents of a part, duplicates included."""
        part, corpus = self.parts[number], self.corpus
        return ranges.read(self.path(part), corpus.text_key, part.range, corpus.join_lines, skipped)

    def drawn_from(self, file: int) -> bool:
        """Whether some of an input's documents are held out by the rule, and others not."""
        return self.rule is not None and file < len(self.corpus.paths)

    def maker(self) -> work.Maker:
        """Opened once in a thread of a worker."""
        if getattr(_opened, "job", None) is not self.job:
            _opened.maker, _opened.job = work.Maker(self.job), self.job
        return _opened.maker

    @functools.cached_property
    def portion_of(self) -> dict[int, int]:
        """Number of a part -> that of its portion."""
        return {part: number for number, found in enumerate(self.portions) for part in found}

    @functools.cached_property
    def parts_of(self) -> dict[int, list[int]]:
        """Number of an input -> those of its parts."""
        found: dict[int, list[int]] = {}
        for number, part in enumerate(self.parts):
            found.setdefault(part.file, []).append(number)
        return found

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class Task(Protocol):
    """A piece of work whose outcome is JSON, written last: where it is, the task is done."""

    @property
    def name(self) -> str:
        """Of the outcome."""

    def run(self, setting: Setting, store: Store) -> object:
        """Does it, and returns the outcome."""


def made(
    corpus: Corpus,
    job: work.Job,
    rows_per_shard: int,
    dedup: str | None,
    rule: heldout.HeldOut | None,
) -> Setting:
    """Cuts the inputs. A file is read whole where it is small, or where rows of its documents are packed together."""
    stored = corpus.stored
    longest = max(_LEAST, min(-(-stored // shards.expected(stored)), stored // _FEW))
    sizes = documents.sizes([*corpus.paths, *corpus.valid_paths])

    def cut(path: str) -> list[ranges.Range]:
        most = sizes[path] if job.pack else longest
        return ranges.cut(path, sizes[path], corpus.text_key, corpus.join_lines, most)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        cuts = pool.map(cut, [*corpus.paths, *corpus.valid_paths])
        parts = [Part(file, one) for file, found in enumerate(cuts) for one in found]
    portions: list[list[int]] = []
    left = 0
    for number, part in enumerate(parts):
        size = part.range.stop - part.range.start
        if not portions or size > left:
            portions.append([])
            left = longest
        portions[-1].append(number)
        left -= size
    return Setting(
        corpus=corpus,
        job=job,
        parts=parts,
        portions=portions,
        longest=longest,
        places=1 + stored // _BYTES_A_PLACE,
        dedup=dedup,
        rule=rule,
        rows_per_shard=rows_per_shard,
    )


def key(part: int, place: int) -> int:
    """Of a document."""
    return part << _PLACES | place


def part_of(key: int) -> int:
    """The part that a document is in."""
    return key >> _PLACES


def place_of(key: int) -> int:
    """The place of a document in its part."""
    return key & (1 << _PLACES) - 1


def save(setting: Setting, store: Store) -> None:
    """Leaves the setting for the workers."""
    store.write(_SETTING, pickle.dumps(setting))


@functools.lru_cache(maxsize=1)
def _load(root: str) -> Setting:
    return pickle.loads(Store(root).read(_SETTING))


def outcome(store: Store, task: Task) -> Any:
    """What a task that is done has said."""
    return json.loads(store.read(task.name))


def perform(root: str, task: Any) -> None:  # of a Task: Beam would check the protocol
    """What an engine calls in any process, as often as it likes."""
    store = Store(root)
    if not store.has(task.name):
        outcome = task.run(_load(root), store)
        store.write(task.name, json.dumps(outcome).encode())
