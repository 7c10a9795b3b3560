"""Corpora to a prepared folder: the same bytes for any number of workers, whole or not at all."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from electra_jax import files
from electra_jax.data import baselines, examples, fingerprint, record, words
from electra_jax.data.prepare import dedup as duplicates
from electra_jax.data.prepare import heldout, notes, processes, shards, team, work
from electra_jax.data.prepare.corpus import Corpus
from electra_jax.spec import UserError
from electra_jax.text import mecab
from electra_jax.text.sources import documents
from electra_jax.text.tokenizer import Tokenizer
from electra_jax.text.tokenizer import load as load_tokenizer

# The smallest corpus, in stored bytes, worth another process (starting one takes a second).
_WORTH_A_WORKER = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done: the corpus, less the copies that `dedup` finds, as shards of at most so many rows.

    Of `valid_fraction` 0 nothing is held out but the corpus's own held-out inputs.
    """

    corpus: Corpus
    job: work.Job
    rows_per_shard: int
    dedup: str | None
    valid_fraction: float


class Done(NamedTuple):
    """What was done: shards, counts by split, the rule of what is held out, and the inputs, described."""

    shards: list[dict[str, Any]]
    counts: dict[str, "collections.Counter[str]"]
    held_out: heldout.HeldOut | None
    inputs: list[dict[str, Any]]
    valid_inputs: list[dict[str, Any]]


# What does the work, writing into a folder.
Engine = Callable[[Order, Path], Done]


def prepare(
    inputs: Sequence[str],
    tokenizer: str | Path,
    seq_len: int,
    output: str | Path,
    segments: str = "pair",
    overflow: str = "carry",
    valid_inputs: Sequence[str] | None = None,
    valid_fraction: float = 0.01,
    text_key: str = "text",
    seed: int = 0,
    workers: int | None = None,
    lowercase: bool | None = None,
    strip_accents: bool | None = None,
    segmenter: str | None = None,
    dedup: str | None = None,
    engine: Engine | None = None,
    pack: bool = False,
    join_lines: bool = False,
    language: str | None = None,
    max_word: int | None = None,
) -> None:
    """Writes the folder `output` of rows of `seq_len` tokens that `source.open_prepared` reads.

    Held out are `valid_inputs`, else documents drawn until they have `valid_fraction` of the text, the
    long ones cut at paragraphs (at least one, unless that is 0). With `join_lines` a paragraph is what
    stands between blank lines. `segments` and `overflow` are those of `examples.Plan`; with a
    `segmenter` "jieba" the word starts of Chinese are those of its words; with "mecab" WordPiece gets
    the words that MeCab finds. `dedup` ("exact" or
    "near") leaves out copies of earlier documents; `pack` puts short rows together, several documents in
    one, each with positions and attention of its own. The same inputs, tokenizer, options and seed
    give the same bytes for any number of `workers` (None: one a core). An `engine` does the work
    in their place.

    Raises UserError, and leaves nothing under `output`, for anything wrong with inputs, options or
    disk; all that can be known beforehand is refused before the work starts.
    """
    plan = examples.Plan(seq_len, segments, overflow)
    _check(valid_fraction, workers, segmenter, dedup)
    files.refuse_existing(output)
    cutter = mecab.Segmenter() if segmenter == "mecab" else None
    loaded = load_tokenizer(tokenizer, lowercase, strip_accents, language, max_word, cutter)
    paths, valid_paths = _inputs(inputs, valid_inputs, text_key)
    corpus = Corpus(paths=paths, valid_paths=valid_paths, text_key=text_key, join_lines=join_lines)
    job = work.Job(loaded, plan, seed, None if segmenter == "mecab" else segmenter, pack)
    options = {
        "segments": segments,
        "overflow": overflow,
        "valid_fraction": None if valid_paths else valid_fraction,
        "text_key": text_key,
        "seed": seed,
        "segmenter": segmenter,
        "dedup": dedup,
        "pack": pack,
        "join_lines": join_lines,
    }
    _make(corpus, job, options, output, workers, engine)


def _make(
    corpus: Corpus,
    job: work.Job,
    options: dict[str, Any],
    output: str | Path,
    workers: int | None,
    engine: Engine | None,
) -> None:
    """Makes the folder `output` from a corpus, once all that can be refused beforehand was."""
    loaded, seq_len, fraction = job.tokenizer, job.plan.seq_len, options["valid_fraction"]
    stored, identities = corpus.stored, corpus.identities()
    workers = workers or min(cores(), 1 + stored // _WORTH_A_WORKER)
    may_join = not (notes.before(corpus, loaded) or options["join_lines"])
    with files.new_folder(output) as folder, files.disk_errors(output):
        _save_tokenizer(loaded, folder / "tokenizer", seq_len)
        order = Order(
            corpus=corpus,
            job=job,
            rows_per_shard=shards.rows_per_shard(seq_len, loaded.size, stored),
            dedup=options["dedup"],
            valid_fraction=fraction or 0,
        )
        done = (engine or functools.partial(_by_processes, workers))(order, folder)
        _check_rows(done.counts)
        corpus.check_unchanged(identities)
        told = {name: options[name] for name in ("segments", "overflow", "valid_fraction")}
        told |= {"held_out": _told(done.held_out)} | options
        info = _described(loaded, seq_len, told, done)
        fingerprint.write(folder, info)
        if workers == 1:
            _complete(folder, info)
        else:  # the memory and the time of libraries that this process does not need
            team.apart(_complete, folder, info)
    notes.after(done.counts, job, fraction, may_join)


def _check(
    valid_fraction: float, workers: int | None, segmenter: str | None, dedup: str | None
) -> None:
    """UserError for options that cannot be, or need a library that is not there."""
    if not 0 <= valid_fraction <= 0.5:
        raise UserError(f"valid fraction {valid_fraction} makes no sense; expected 0 to 0.5")
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers make no sense; expected at least 1")
    if segmenter not in (None, "mecab"):
        words.load_segmenter(segmenter)
    if dedup is not None:
        duplicates.check(dedup)


def _check_rows(counts: Mapping[str, Mapping[str, Any]]) -> None:
    """UserError where everything was held out."""
    if not counts["train"]["rows"]:
        raise UserError(
            f"no text is left for training: all {counts['valid']['documents']} documents are "
            "held out; give more documents, another --seed or a smaller --valid-fraction"
        )


def _described(
    loaded: Tokenizer, seq_len: int, options: Mapping[str, Any], done: Done
) -> dict[str, Any]:
    """The content of the fingerprint."""
    return {
        "schema": fingerprint.SCHEMA,
        "seq_len": seq_len,
        "vocab_size": loaded.size,
        "fields": list(record.FIELDS),
        "dtype": record.dtype_for(loaded.size).str,
        "special": loaded.special._asdict(),
        "tokenizer": {
            "hash": loaded.hash,
            "kind": loaded.kind,
            "lowercase": loaded.lowercase,
            "strip_accents": loaded.strip_accents,
        },
        "options": dict(options),
        "inputs": done.inputs,
        "valid_inputs": done.valid_inputs,
        "counts": {split: _with_shares(done.counts[split]) for split in done.counts},
        "shards": done.shards,
    }


def chosen(order: Order, workers: int, folder: Path) -> Corpus:
    """The corpus without its duplicates, and with a rule for what is held out; workers pass files in `folder`."""
    corpus, dedup, fraction = order.corpus, order.dedup, order.valid_fraction
    if dedup is not None:
        with tqdm(
            total=corpus.stored, unit="B", unit_scale=True, desc="dedup", disable=None
        ) as bar:
            dropped = duplicates.duplicates(corpus, dedup, workers, bar.update, folder)
        corpus = dataclasses.replace(corpus, dropped=dropped)
    if fraction > 0:
        rule = heldout.rule(order.job.seed, fraction, corpus.stored, len(corpus), corpus.numbered)
        corpus = dataclasses.replace(corpus, held_out=rule)
    return corpus


def _told(held_out: heldout.HeldOut | None) -> dict[str, int | str] | None:
    """The rule as the fingerprint has it; folders made by the rule before (by document) have none."""
    if held_out is None:
        return None
    return {"by": "bytes", "section_bytes": held_out.section}


def _inputs(
    inputs: Sequence[str], valid_inputs: Sequence[str] | None, text_key: str
) -> tuple[list[str], list[str]]:
    """The checked paths for training and, where named, for the held-out split."""
    paths = documents.expand(inputs)
    valid_paths = documents.expand(valid_inputs) if valid_inputs else []
    for path in [*paths, *valid_paths]:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"input {path!r} has a name that is no UTF-8, which the fingerprint cannot hold; rename the file"
            ) from None
    both = {os.path.abspath(path) for path in paths} & {os.path.abspath(p) for p in valid_paths}
    if both:
        raise UserError(
            f"{min(both)} is named both for training and for the held-out split; choose one"
        )
    documents.check([*paths, *valid_paths], text_key)
    return paths, valid_paths


def finished(corpus: Corpus, written: processes.Written) -> Done:
    """What there is to say when a chosen corpus is written."""
    counts, of_training = written.counts, len(corpus.paths)
    for file, _ in corpus.dropped:
        counts["train" if file < of_training else "valid"]["duplicates"] += 1
    inputs = written.inputs
    return Done(written.shards, counts, corpus.held_out, inputs[:of_training], inputs[of_training:])


def _by_processes(workers: int, order: Order, folder: Path) -> Done:
    """An engine of this machine's processes: rows in the order of the text."""
    corpus = chosen(order, workers, folder)
    written = processes.write(workers, corpus, order.job, folder, order.rows_per_shard)
    return finished(corpus, written)


def _complete(folder: Path, info: dict[str, Any]) -> None:
    """Writes what others than this program's readers want beside the rows, and what counting tells of these."""
    shards.write_metadata(folder, info["shards"], info["seq_len"], np.dtype(info["dtype"]))
    baselines.write(folder)


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _save_tokenizer(loaded: Tokenizer, folder: Path, seq_len: int) -> None:
    """Saves the tokenizer beside the rows, and makes sure that it is the same when loaded again."""
    loaded.save(folder, max_length=seq_len)
    if (found := load_tokenizer(folder).hash) != loaded.hash:
        raise UserError(
            f"the tokenizer cannot be saved: loaded again it has the hash {found}, not "
            f"{loaded.hash}; please report this with the tokenizer's files"
        )


def _with_shares(counts: collections.Counter[str]) -> dict[str, int | float]:
    """The counts of a split, and the shares one wants to know; all names in a fixed order."""
    rows, places = max(1, counts["packed_rows"] or counts["rows"]), max(1, counts["places"])
    return {
        **{name: counts[name] for name in (*work.COUNTS, "duplicates")},
        "real_token_share": round(counts["real_tokens"] / places, 6),
        "single_segment_share": round(counts["single_segment_rows"] / rows, 6),
        "short_target_share": round(counts["short_target_rows"] / rows, 6),
        "median_document_tokens": work.median_length(counts),
    }
