#!/usr/bin/env python3
"""Measures `electra-jax prepare` against the tokenizer library alone, and the reading of rows.

    python tools/bench_data.py --input 'corpus/*.txt.gz' --tokenizer tok/

prints MiB/s of text for both on the same cores, their ratio, the memory of all processes together
at its peak (on Linux), and rows/s read from one process, in the order of training and in sequence.
With --datasets (needs datasets and transformers) also what the usual scripts do with that library on
the same sample. With --double the corpus is prepared a second time at twice its size: the memory should not grow.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from electra_jax.data import order, source
from electra_jax.data.prepare import build
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.text.sources import documents

MIB = 2**20
READ_SECONDS = 5.0
BATCH = 256


class Cost(NamedTuple):
    """What it took to get through so many bytes of text."""

    size: int
    seconds: float
    cpu_seconds: float

    @property
    def wall(self) -> float:
        """Seconds for a MiB."""
        return self.seconds / self.size * MIB

    @property
    def cpu(self) -> float:
        """Processor seconds for a MiB."""
        return self.cpu_seconds / self.size * MIB

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return (
            f"{1 / self.wall:8.2f} MiB/s  ({self.size / MIB:.0f} MiB in {self.seconds:.1f} s, "
            f"{self.cpu_seconds:.1f} s of processors)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="text files or globs")
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder or vocab.txt")
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--workers", type=int, default=None, help="default: one a core")
    parser.add_argument("--sample-mib", type=int, default=32, help="text for the library alone")
    parser.add_argument("--datasets", action="store_true", help="also the `datasets` library's map")
    parser.add_argument("--double", action="store_true", help="also prepare twice the corpus")
    args = parser.parse_args()
    try:
        measure(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def measure(args: argparse.Namespace) -> None:
    """Runs everything once and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = tokenizer.load(args.tokenizer)
        loaded.save(Path(folder, "tok"))
        paths = documents.expand(args.input)
        sample, size = read(paths, args.sample_mib * MIB)
        # Before and after, because the machine may do other things meanwhile. Processor time is told
        # too: it is what a busy machine leaves as it is.
        library = encode(Path(folder, "tok"), sample)
        ours, peak = prepare(paths, args, Path(folder, "rows"), size)
        library = library + encode(Path(folder, "tok"), sample)
        print(f"library encode_batch  {library}")
        print(f"prepare               {ours}")
        if args.datasets:
            usual = idiom(Path(folder, "tok"), sample, args)
            print(f"datasets map          {usual}")
            print(f"prepare is faster by  {usual.wall / ours.wall:8.2f}  ", end="")
            print(f"(by processor time {usual.cpu / ours.cpu:.2f})")
        print(f"ratio                 {library.wall / ours.wall:8.0%}  ", end="")
        print(f"(by processor time {library.cpu / ours.cpu:.0%})")
        print(f"peak memory           {peak / MIB:8.0f} MiB  (all processes together)")
        if args.double:
            twice = [*paths, *links(paths, Path(folder, "again"))]
            ours, peak = prepare(twice, args, Path(folder, "rows2"), 2 * size)
            print(f"  twice the corpus    {peak / MIB:8.0f} MiB")
            print(f"                      {ours}")
        rows = source.open_prepared(Path(folder, "rows")).source("train")
        n = len(rows)
        shuffled = read_speed(rows, lambda step: order.rows(step, BATCH, n, seed=0))
        in_order = read_speed(rows, lambda step: np.arange(step * BATCH, (step + 1) * BATCH) % n)
        print(f"read, training order  {shuffled}, of {args.seq_len} tokens, one process")
        print(f"read, in sequence     {in_order}")


def read(paths: Sequence[str], most: int) -> tuple[list[str], int]:
    """About `most` bytes of paragraphs, every so many documents, and the bytes of all the text."""
    sizes = [sum(len(line.encode()) for line in d) for p in paths for d in documents.read(p)]
    every = max(1, sum(sizes) // most)
    chosen = itertools.islice((d for p in paths for d in documents.read(p)), 0, None, every)
    return [line for document in chosen for line in document], sum(sizes)


def encode(folder: Path, lines: Sequence[str]) -> Cost:
    """The library's own encode_batch with its own threads."""
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = sum(len(line.encode()) for line in lines)
    begin, cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(lines), 2000):
        library.encode_batch(lines[at : at + 2000], add_special_tokens=False)
    return Cost(size, time.perf_counter() - begin, time.process_time() - cpu)


def idiom(folder: Path, lines: Sequence[str], args: argparse.Namespace) -> Cost:
    """What pretraining scripts do: `datasets` maps the tokenizer over lines, then joins and cuts them into rows."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    length = args.seq_len - 2

    def cut(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        ids = list(itertools.chain.from_iterable(batch["input_ids"]))
        return {"input_ids": [ids[at : at + length] for at in range(0, len(ids), length)]}

    def words(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": fast(batch["text"], add_special_tokens=False)["input_ids"]}

    text = datasets.Dataset.from_dict({"text": list(lines)})
    options = {"batched": True, "num_proc": args.workers or os.cpu_count()}
    size = sum(len(line.encode()) for line in lines)
    begin, cpu = time.perf_counter(), time.process_time() + processors()
    text.map(words, remove_columns=["text"], **options).map(cut, **options)
    return Cost(size, time.perf_counter() - begin, time.process_time() + processors() - cpu)


def prepare(
    paths: Sequence[str], args: argparse.Namespace, output: Path, size: int
) -> tuple[Cost, int]:
    """What `prepare` takes, starting its processes included, and the peak memory of all of them."""
    arguments = (paths, args.tokenizer, args.seq_len, output, args.workers)
    child = multiprocessing.get_context("spawn").Process(target=run_prepare, args=arguments)
    begin, cpu = time.perf_counter(), processors()
    child.start()
    peak = Peak(child.pid)
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)
    return Cost(size, time.perf_counter() - begin, processors() - cpu), peak.stop()


def processors() -> float:
    """Processor seconds of all processes that this one has started and seen end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_prepare(paths, tokenizer_path, seq_len, output, workers) -> None:
    """The work of the measured process; 2 for a mistake of the user's."""
    try:
        build.prepare(paths, tokenizer_path, seq_len, output, workers=workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


class Peak:
    """Adds up, ten times a second, the memory of a process and all that come from it."""

    def __init__(self, pid: int | None) -> None:
        self._pid, self._peak, self._done = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The most bytes seen; 0 where /proc does not tell."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            todo, total = [self._pid], 0
            while todo:
                pid = todo.pop()
                try:
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                except OSError:
                    continue
            self._peak = max(self._peak, total * os.sysconf("SC_PAGE_SIZE"))


def links(paths: Sequence[str], folder: Path) -> list[str]:
    """Links to the files under other names, so that they count as other inputs."""
    folder.mkdir()
    for number, path in enumerate(paths):
        (folder / f"{number}-{os.path.basename(path)}").symlink_to(os.path.abspath(path))
    return sorted(map(str, folder.iterdir()))


def read_speed(rows: source.Source, numbers: Callable[[int], np.ndarray]) -> str:
    """Rows/s, finding their numbers included."""
    begin, cpu, step = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < READ_SECONDS:
        rows.rows(numbers(step))
        step += 1
    wall = step * BATCH / (time.perf_counter() - begin)
    return (
        f"{wall:8,.0f} rows/s  ({step * BATCH / (time.process_time() - cpu):,.0f} per processor s)"
    )


if __name__ == "__main__":
    main()
