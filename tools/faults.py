#!/usr/bin/env python3
"""Kills the real commands at many moments, and writes what came of it into docs/reliability.md.

    python tools/faults.py                       # every file operation of a save, and twenty moments, seed 0
    python tools/faults.py --moments 5 --seed 1 --page elsewhere.md
    python tools/faults.py --moments 0           # the file operations alone

A save is killed before each of its file operations, one after the other (tools/kill_at.py counts them). Each moment is
tied to what the program shows (a line on stderr, a line of metrics.jsonl, a file), with a seeded delay, and checked
once the process is dead, so that preparation, compilation, a step, an evaluation and a save are really hit. After the
last one the run is finished and compared with one that nobody disturbed.

After every kill the next start is judged: it is to go on from the newest checkpoint that is whole (by its checksums,
under whatever name it lies). LOST_WORK is a start from an older one, REFUSED one that ends by itself with an error.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax.data.prepare import build
from electra_jax.learn import checkpoint, content, stored, unconfirmed
from electra_jax.spec import UserError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
BLOCKS = ("operations", "moments")  # of the page, each between two marks
STEPS, EVAL_EVERY, CHECKPOINT_EVERY = 160, 8, 4
# Every other key of metrics.jsonl must be equal to the last digit.
TIMING = {"tokens_per_s", "model_flops_per_s", "mfu", "mfu_of_matmul", "data_wait", "goodput"}
PATIENCE_S = 900.0  # for one start, on a machine that is busy with other things
ATTEMPTS = 8
KILL_AT = str(Path(__file__).with_name("kill_at.py"))
MOST_OPERATIONS = 300
WORDS = ("the", "of", "and", "sea", "light", "stone", "river", "walks", "under", "quiet", "green")


class MissedError(Exception):
    """A moment that could not be hit, or a run that did not come out as it should."""


def make_corpus(home: Path, documents: int = 200) -> tuple[Path, Path]:
    """A text of random words and a vocabulary for it: (text, vocabulary)."""
    draw = random.Random(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]
    (home / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    texts = [
        "\n".join(" ".join(draw.choices(WORDS, k=draw.randrange(4, 30))) + "." for _ in range(6))
        for _ in range(documents)
    ]
    (home / "text.txt").write_text("\n\n".join(texts) + "\n")
    return home / "text.txt", home / "vocab.txt"


def make_data(home: Path) -> Path:
    """A few hundred rows of 32 tokens."""
    text, vocabulary = make_corpus(home)
    build.prepare([str(text)], vocabulary, 32, home / "rows", valid_fraction=0.2, workers=1)
    return home / "rows"


class Run:
    """A workdir, and the command that is started on it again and again."""

    def __init__(self, workdir: Path, data: Path, cache: Path) -> None:
        self.workdir, self.data, self.cache = workdir, data, cache
        self.log = workdir.with_suffix(".log")
        self.stale: set[tuple[str, int]] = set()
        self.whole = 0
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",  # one device: the fake ones only make the command slower
            "JAX_COMPILATION_CACHE_DIR": str(cache),
        }

    def start(
        self, program: Sequence[str] = (sys.executable, "-m", "electra_jax"), **environment: str
    ) -> subprocess.Popen[bytes]:
        """The command a user would type: the whole one until the workdir holds the run, then the short one."""
        self.stale, self.whole = self.partial(), self.newest_whole()
        command = [*program, "pretrain", "--workdir", str(self.workdir)]
        if not (self.workdir / "config.json").exists():
            values = {
                "data.path": self.data,
                "train.steps": STEPS,
                "train.log_every": 1,
                "train.eval_every": EVAL_EVERY,
                "train.eval_batches": 4,
                "train.checkpoint_every": CHECKPOINT_EVERY,
            }
            command += ["--config", "tiny"]
            command += [f"--config.{name}={value}" for name, value in values.items()]
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment | environment
            )

    def finish(self) -> None:
        """Starts it and lets it end."""
        process = self.start()
        try:
            status = process.wait(PATIENCE_S)
        finally:
            process.kill()
        if status != 0:
            raise MissedError(f"REFUSED: exit status {status}: {self.log.read_text()}")
        self.judge()

    def judge(self) -> None:
        """Raises MissedError where this start went on from less than what there was."""
        told = self.log.read_text()
        went_on = re.search(r"^resuming .* after step (\d+)", told, re.MULTILINE)
        if went_on is None and not re.search(r"^step \d+", told, re.MULTILINE):
            return  # it was killed before it said so
        if (step := int(went_on[1]) if went_on else 0) < self.whole:
            raise MissedError(f"LOST_WORK: from step {step}, with {self.whole} there: {told}")

    def newest_whole(self) -> int:
        """The newest step whose checkpoint is as it was saved, even one that was moved aside; 0 without."""
        folder = self.workdir / stored.FOLDER
        for step, place in sorted(_places(folder), reverse=True):
            try:
                content.read(place)
            except (*content.READ_FAULTS, content.DamagedError):
                continue
            return step
        return 0

    def kill_before(self, number: int) -> str | None:
        """Starts it and kills it before an operation of its first save; which, or None when there were fewer."""
        noted = self.log.with_suffix(".operations")
        noted.unlink(missing_ok=True)
        process = self.start((sys.executable, KILL_AT, str(number), str(noted), str(self.workdir)))
        try:
            status = process.wait(PATIENCE_S)
        finally:
            process.kill()
        if status not in (0, -signal.SIGKILL):
            raise MissedError(f"REFUSED: exit status {status}: {self.log.read_text()}")
        self.judge()
        lines = noted.read_text().splitlines()
        return lines[-1] if status else None

    def kill(self, moment: "Moment", **environment: str) -> bool:
        """Starts it and kills it at the moment; whether that still held with the process dead."""
        process = self.start(**environment)
        deadline = time.monotonic() + PATIENCE_S
        try:
            while not moment.ready(self):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MissedError(f"{moment.name} never came: {self.log.read_text()}")
                time.sleep(0.0005)
            time.sleep(moment.delay_s)
        finally:
            process.kill()
            process.wait()
        self.judge()
        return moment.ready(self)

    def hit(self, moment: "Moment") -> dict[str, Any]:
        """Kills it at the moment, in as many attempts as that takes; what happened, as a row of the table."""
        for _ in range(ATTEMPTS):
            # Compilation takes long enough to be hit only where nothing is cached.
            cold = {
                "JAX_COMPILATION_CACHE_DIR": str(self.cache.with_name(f"cold-{time.time_ns()}"))
            }
            if self.kill(moment, **(cold if moment.name == "compiling" else {})):
                saved = self.saved()
                return {
                    "moment": moment.name,
                    "step": self.trained(),
                    "saved": saved,
                    "lost": max(0, self.trained() - saved),
                }
        raise MissedError(f"{moment.name} was not hit in {ATTEMPTS} attempts")

    def partial(self) -> set[tuple[str, int]]:
        """The checkpoints that are being written, or that a kill left so, by name and inode."""
        folder = self.workdir / "checkpoints"
        if not folder.exists():
            return set()
        with os.scandir(folder) as entries:
            return {(e.name, e.inode()) for e in entries if "tmp" in e.name}

    def announced(self) -> bool:
        """Whether this start has read what earlier ones left, and says what it will do."""
        return b"trainable parameters" in self.log.read_bytes()

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl, without what depends on the machine's speed."""
        path = self.workdir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = [json.loads(x) for x in text.splitlines(keepends=True) if x.endswith("\n")]
        return [{k: v for k, v in line.items() if k not in TIMING} for line in whole]

    def trained(self) -> int:
        """The last step that is logged."""
        return max((line["step"] for line in self.lines() if line["split"] == "train"), default=0)

    def saved(self) -> int:
        """The last step with a checkpoint, 0 without."""
        return max(checkpoint.Checkpoints(self.workdir).steps(), default=0)

    def result(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """All lines, and shape, dtype and checksum of every array of the last checkpoint."""
        record = self.workdir / "checkpoints" / str(STEPS) / "meta" / "metadata"
        lines = sorted(self.lines(), key=lambda line: (line["step"], line["split"]))
        return lines, json.loads(record.read_text())["arrays"]


def _places(folder: Path) -> Iterator[tuple[int, Path]]:
    """Step and folder of every checkpoint, those that were moved aside among them."""
    for path in folder.iterdir() if folder.is_dir() else ():
        step = path.name.removesuffix(stored.DAMAGED).removesuffix(unconfirmed.REJECTED)
        if step.isdecimal():
            yield int(step), path


def kill_every_operation(run: Run) -> list[dict[str, Any]]:
    """Kills a save before its first file operation, its second, and so on, each time from a copy of one workdir; a row
    for each part of a save.
    """
    run.kill(Moment("stepping", stepping, CHECKPOINT_EVERY * 4))  # as many are kept as will be
    stored.remove_partial(run.workdir / stored.FOLDER)
    begun = run.workdir.with_name("begun")
    run.workdir.rename(begun)
    first, rows = 0, dict[str, dict[str, Any]]()
    for number in range(1, MOST_OPERATIONS + 1):
        shutil.rmtree(run.workdir, ignore_errors=True)
        shutil.copytree(begun, run.workdir)
        first = run.newest_whole()
        operation = run.kill_before(number)
        if operation is None:
            return [{"part": part, **row} for part, row in rows.items()]
        kept = run.newest_whole()
        if kept < first:
            raise MissedError(f"LOST_WORK: a save cost the checkpoint of step {first}")
        row = rows.setdefault(part_of_save(operation), {"kills": 0, "new": 0, "lost": []})
        row["kills"] += 1
        row["new"] += kept > first
        row["lost"].append(max(0, run.trained() - kept))
        print(f"before operation {number}, {operation}: {first} was whole, {kept} is", flush=True)
    raise MissedError(f"a save has more than {MOST_OPERATIONS} file operations")


def part_of_save(operation: str) -> str:
    """What a file operation belongs to."""
    verb, name = operation.split(" ", 1)
    if ".unconfirmed-" in name:
        return "noting what is unconfirmed"
    if verb == "rmdir":
        return "removing the oldest"
    if "/" not in name:
        return (
            "removing the oldest" if verb in ("remove", "rmdir") else "other files of the workdir"
        )
    if verb == "rename":
        parts = name.count("/")
        return "giving it its name" if parts == 1 else "naming its parts"
    return "writing it"


def starting(run: Run) -> bool:
    """Anything: what counts is the delay."""
    return True


def compiling(run: Run) -> bool:
    """No step has been made by this start."""
    return run.announced() and run.trained() in (0, *checkpoint.Checkpoints(run.workdir).steps())


def stepping(run: Run) -> bool:
    """Between two checkpoints."""
    return run.announced() and run.trained() % CHECKPOINT_EVERY == 2


def saving(run: Run) -> bool:
    """A checkpoint is being written, and has not got its name yet."""
    return run.announced() and bool(run.partial() - run.stale)


def evaluating(run: Run) -> bool:
    """The last step is logged, its evaluation is not."""
    last = run.lines()[-1:] if run.announced() else []
    return bool(last) and last[0]["step"] % EVAL_EVERY == 0 and last[0]["split"] == "train"


@dataclass(frozen=True)
class Moment:
    """What to hit, not before which step, and how long after it shows."""

    name: str
    shows: Callable[[Run], bool]
    step: int = 0
    delay_s: float = 0.0

    def ready(self, run: Run) -> bool:
        """Whether it is now."""
        return run.trained() >= self.step and self.shows(run)


# What is killed, and how long after it shows at most, in seconds.
KINDS = (
    ("saving", saving, 0.004),
    ("evaluating", evaluating, 0.02),
    ("compiling", compiling, 0.5),
    ("stepping", stepping, 0.0),
    ("starting", starting, 4.0),
)


def moments(draw: random.Random, kinds: Sequence[str]) -> list[Moment]:
    """One moment of each kind named, compilation first, the others in an order, at steps and with delays that
    depend on the seed."""
    known = {name: (shows, longest) for name, shows, longest in KINDS}
    shuffled = [name for name in kinds if name != "compiling"]
    draw.shuffle(shuffled)
    steps = sorted(draw.choices(range(STEPS * 2 // 3), k=len(shuffled)))
    later = [
        # A start begins with its first line, whatever steps there were before it.
        Moment(
            name,
            known[name][0],
            0 if name == "starting" else step,
            draw.uniform(0, known[name][1]),
        )
        for name, step in zip(shuffled, steps, strict=True)
    ]
    first = [
        Moment(name, known[name][0], 0, draw.uniform(0, known[name][1]))
        for name in kinds
        if name == "compiling"
    ]
    return [*first, *later]


def kill_preparation(home: Path, draw: random.Random) -> dict[str, Any]:
    """Kills `prepare` while it writes, then runs it again; the folder must be that of a run left alone."""
    text, vocabulary = make_corpus(home, documents=20_000)
    output = home / "rows"
    command = [sys.executable, "-m", "electra_jax", "prepare", "--input", str(text)]
    command += ["--tokenizer", str(vocabulary), "--seq-len", "32", "--workers", "1", "--output"]
    log = home / "prepare.log"

    def written() -> int:
        return sum(path.stat().st_size for path in home.glob(".rows.partial-*/*") if path.is_file())

    for attempt in range(ATTEMPTS):
        with open(log, "wb") as out:
            process = subprocess.Popen([*command, str(output)], stdout=out, stderr=out)
        try:
            left, deadline = written(), time.monotonic() + PATIENCE_S
            while written() <= left:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MissedError(f"preparation was never seen: {log.read_text()}")
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.2) / 2**attempt)
        finally:
            process.kill()
            process.wait()
        if not output.exists():
            break
        shutil.rmtree(output)  # it was faster
    else:
        raise MissedError(f"preparation was not hit in {ATTEMPTS} attempts")
    for name in (output, home / "undisturbed"):
        subprocess.run([*command, str(name)], check=True, capture_output=True)
    if digest(output) != digest(home / "undisturbed"):
        raise MissedError(f"{output} differs from a preparation that was left alone")
    return {"moment": "preparing", "step": "", "saved": "", "lost": "all of it"}


def digest(folder: Path) -> str:
    """One hash of all names and contents of a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def rows(found: Sequence[dict[str, Any]]) -> str:
    """The table of the page."""
    lines = [
        "| killed while | at step | newest checkpoint | steps done again |",
        "|---|---|---|---|",
    ]
    for row in found:
        cells = [str(row.get(name, "")) for name in ("step", "saved", "lost")]
        lines.append(f"| {row['moment']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def operations_table(found: Sequence[dict[str, Any]]) -> str:
    """The table of the file operations."""
    lines = [
        "| killed before an operation of | kills | then the new one was whole | steps done again |",
        "|---|---|---|---|",
    ]
    for row in found:
        low, high = min(row["lost"]), max(row["lost"])
        lost = str(low) if low == high else f"{low} to {high}"
        lines.append(f"| {row['part']} | {row['kills']} | {row['new']} times | {lost} |")
    return "\n".join(lines) + "\n"


def every_operation(home: Path, data: Path, undisturbed: Run) -> str:
    """Kills a run before every file operation of a save; what to write of it."""
    run = Run(home / "operations", data, home / "cache")
    found = kill_every_operation(run)
    run.finish()
    if run.result() != undisturbed.result():
        raise MissedError("the run killed at file operations differs from the one left alone")
    kills = sum(row["kills"] for row in found)
    return (
        f"{kills} saves, the n-th killed before its n-th file operation, {made_on()}: every start went on from the "
        f"newest checkpoint that was whole, and the end (step {STEPS}, one saved every {CHECKPOINT_EVERY}) is that of "
        "the run left alone.\n\n" + operations_table(found)
    )


def every_moment(home: Path, data: Path, undisturbed: Run, number: int, seed: int) -> str:
    """Kills preparations and a run at many moments; what to write of it."""
    draw = random.Random(seed)
    names = ["preparing", *(name for name, _, _ in KINDS)]
    kinds = [names[i % len(names)] for i in range(number)]
    found = []
    for at in range(kinds.count("preparing")):
        place = home / f"prepare-{at}"
        place.mkdir()
        found.append(kill_preparation(place, draw))
        print(found[-1], flush=True)
    run = Run(home / "run", data, home / "cache")
    for moment in moments(draw, [kind for kind in kinds if kind != "preparing"]):
        found.append(run.hit(moment))
        print(found[-1], flush=True)
    run.finish()
    if run.result() != undisturbed.result():
        raise MissedError("the killed run differs from the one left alone")
    return (
        f"{len(found)} moments, seed {seed}, {made_on()}: every line of `metrics.jsonl` and every bit of the last "
        f"checkpoint (step {STEPS}, one saved every {CHECKPOINT_EVERY}) is that of the run left alone.\n\n"
        + rows(found)
    )


def made_on() -> str:
    """When, and on what."""
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}, a Linux machine of {os.cpu_count()} cores"


def marks(block: str) -> tuple[str, str]:
    """What stands before and after a block of the page."""
    return f"<!-- {block}: written by tools/faults.py -->\n", f"<!-- end of {block} -->\n"


def write(page: Path, block: str, text: str) -> None:
    """Puts the text between the marks of a block."""
    begin, end = marks(block)
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2])
    print(f"wrote {block} into {page}", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=20, help="0: the file operations alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=PAGE, help="with the marks to write between")
    options = parser.parse_args()
    page = options.page.read_text()
    for mark in (mark for block in BLOCKS for mark in marks(block)):
        if mark not in page:
            raise UserError(f"{options.page} lacks the mark {mark.strip()}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = make_data(home)
        undisturbed = Run(home / "undisturbed", data, home / "cache")
        undisturbed.finish()
        write(options.page, "operations", every_operation(home, data, undisturbed))
        if options.moments:
            told = every_moment(home, data, undisturbed, options.moments, options.seed)
            write(options.page, "moments", told)


if __name__ == "__main__":
    try:
        main()
    except (UserError, MissedError) as error:
        sys.exit(f"error: {error}")
