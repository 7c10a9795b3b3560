"""The work itself: a block of documents in, finished records and counts out."""

import collections
import dataclasses
import hashlib
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data import examples, packing, record, words
from electra_jax.text import lost
from electra_jax.text.tokenizer import Tokenizer

SPLITS = ("train", "valid")

# What is counted for each split.
COUNTS = (
    "documents",
    "paragraphs",
    "tokens",
    "unknown_tokens",
    "chinese_tokens",
    "kana_tokens",
    "hangul_tokens",
    "characters",
    "unknown_characters",
    "too_long_characters",
    "rows",
    "packed_rows",
    "single_segment_rows",
    "short_target_rows",
    "text_tokens_in_rows",
    "real_tokens",
    "places",
    "document_parts",
    "null_texts",
    "empty_articles",
)

# Before a number of tokens: counts the documents of that length.
_LENGTH = "length/"


@dataclasses.dataclass(frozen=True)
class Job:
    """All that makes the records of a block: equal jobs and blocks give equal bytes."""

    tokenizer: Tokenizer
    plan: examples.Plan
    seed: int
    segmenter: str | None
    pack: bool = False


class Block(NamedTuple):
    """Documents of input number `file`, each with its number there, and which are held out.

    `parts` has 0 for a whole document, else 1, 2, ... for one that was cut to hold out a part of it;
    `skipped` counts what was passed over in reading.
    """

    file: int
    numbers: list[int]
    documents: list[list[str]]
    held_out: list[bool]
    parts: list[int]
    skipped: dict[str, int]


class Made(NamedTuple):
    """Records by split, uint8 [rows, record bytes], and counts by split and name."""

    records: dict[str, np.ndarray]
    counts: dict[str, collections.Counter[str]]


class Maker:
    """Makes records of blocks."""

    def __init__(self, job: Job) -> None:
        self._job, self._tokenizer = job, job.tokenizer
        self._dtype = record.dtype_for(self._tokenizer.size)
        self._words = words.Words(self._tokenizer, job.segmenter)
        self._lost = lost.Lost(self._tokenizer)

    def __call__(self, block: Block) -> Made:
        """The records of a block's documents, in their order."""
        plan, special = self._job.plan, self._tokenizer.special
        lines = list(itertools.chain.from_iterable(block.documents))
        ids_N, lengths_P = self._tokenizer.encode_flat(lines)
        starts_N = self._words.starts(lines, lengths_P, ids_N)
        tokens_N, lengths = ids_N.astype(self._dtype), lengths_P.tolist()

        rows: dict[str, list[tuple[int, examples.Row]]] = {"train": [], "valid": []}
        sizes: list[int] = []
        line, base = 0, 0
        for document, number, part, held_out in zip(
            block.documents, block.numbers, block.parts, block.held_out, strict=True
        ):
            end = line + len(document)
            # Drawn by document, so that neither blocks nor workers change a row.
            name = f"{number}/part {part}" if part else f"{number}"
            uniform = draws(f"rows/{self._job.seed}/{block.file}/{name}")
            cut = examples.cut(lengths[line:end], plan, uniform)
            rows["valid" if held_out else "train"] += [(base, row) for row in cut]
            sizes.append(sum(lengths[line:end]))
            line, base = end, base + sizes[-1]

        held_out_D = np.array(block.held_out, bool)
        held_out_N = np.repeat(held_out_D, sizes)
        paragraphs_D = np.array([len(document) for document in block.documents], np.int64)
        parts_D, sizes_D = np.array(block.parts, np.int64), np.array(sizes, np.int64)
        records, counts = {}, {}
        for split, of_split in rows.items():
            in_split = split == "valid"
            here_M = tokens_N[held_out_N == in_split]
            counts[split] = collections.Counter(
                documents=int(np.count_nonzero(held_out_D == in_split)),
                paragraphs=int(paragraphs_D[held_out_D == in_split].sum()),
                tokens=len(here_M),
                unknown_tokens=int(np.count_nonzero(here_M == special.unk)),
                chinese_tokens=int(np.count_nonzero(self._words.han_V[here_M])),
                kana_tokens=int(np.count_nonzero(self._words.kana_V[here_M])),
                hangul_tokens=int(np.count_nonzero(self._words.hangul_V[here_M])),
                document_parts=int(np.count_nonzero(parts_D[held_out_D == in_split])),
                **_row_counts(of_split),
            )
            for length in sizes_D[held_out_D == in_split].tolist():
                counts[split][f"{_LENGTH}{_rounded(length)}"] += 1
            counts[split].update(self._characters(block, in_split, lines, lengths_P, ids_N))
            built_RxFxL = examples.assemble(
                of_split, tokens_N, starts_N, plan.seq_len, special, self._dtype
            )
            if self._job.pack:
                counts[split]["packed_rows"] = len(built_RxFxL)
                built_RxFxL = packing.pack(built_RxFxL, special.pad)
            counts[split]["rows"] = len(built_RxFxL)
            counts[split]["places"] = len(built_RxFxL) * plan.seq_len
            records[split] = record.encode(built_RxFxL)
        counts["train"].update(block.skipped)
        return Made(records, counts)

    def _characters(
        self,
        block: Block,
        in_split: bool,
        lines: Sequence[str],
        lengths_P: np.ndarray,
        ids_N: np.ndarray,
    ) -> dict[str, int]:
        """Counts of the characters of a split's lines, and of those that became [UNK]."""
        held_out = (
            h for h, document in zip(block.held_out, block.documents, strict=True) for _ in document
        )
        ends_P = np.cumsum(lengths_P)
        unknowns_N = np.concatenate(([0], np.cumsum(ids_N == self._tokenizer.special.unk)))
        has_unknown_P = unknowns_N[ends_P] > unknowns_N[ends_P - lengths_P]
        total, losing = 0, []
        for line, of_valid, loses in zip(lines, held_out, has_unknown_P.tolist(), strict=True):
            if of_valid == in_split:
                total += len(line)
                losing += [line] if loses else []
        loss = self._lost.count(losing)
        return {
            "characters": total,
            "unknown_characters": loss.unknown,
            "too_long_characters": loss.too_long,
        }


def median_length(counts: Mapping[str, int]) -> int:
    """The tokens of the median document: exact below 128, else rounded down by less than a sixtieth."""
    lengths = {int(k.removeprefix(_LENGTH)): n for k, n in counts.items() if k.startswith(_LENGTH)}
    left = (sum(lengths.values()) + 1) // 2
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            return length
    return 0


def _rounded(length: int) -> int:
    """To seven binary digits, so that few lengths are told apart."""
    shift = max(0, length.bit_length() - 7)
    return length >> shift << shift


def draws(key: str) -> Callable[[], float]:
    """Numbers in [0, 1), the same for the same key on every machine and Python; cheap to begin,
    because a corpus may have a document for every few words."""

    def numbers() -> Iterator[float]:
        for count in itertools.count():
            digest = hashlib.blake2b(f"{key}/{count}".encode()).digest()
            for number in struct.unpack("<16I", digest):
                yield number / 2**32

    return numbers().__next__


def _row_counts(rows: Sequence[tuple[int, examples.Row]]) -> dict[str, int]:
    single = sum(not row.second for _, row in rows)
    text = sum(b - a for _, row in rows for a, b in itertools.chain(row.first, row.second))
    return {
        "single_segment_rows": single,
        "short_target_rows": sum(row.short for _, row in rows),
        "text_tokens_in_rows": text,
        "real_tokens": text + 2 * single + 3 * (len(rows) - single),
    }
