"""The phases of a run as runs of one phase each, which are weighed one by one."""

import ast
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from electra_jax import remote
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.pretrain.options import RunSpec
from electra_jax.spec import UserError, find_config
from electra_jax.text.special import SpecialIds


@dataclass(frozen=True)
class Stretch:
    """One phase of a run."""

    run: RunSpec  # with the phase's batch, accumulation, steps and schedule, and no phases
    data: Prepared
    number: int = 1
    of: int = 1

    def flags(self, words: str) -> str:
        """Flags of the command line; what a phase sets for itself by its place in the config."""
        if self.of == 1:
            return words
        return words.replace("--config.train.", f"train.phases[{self.number - 1}].")


def stretches(
    config: str, run: RunSpec, seq_len: int | None, vocab_size: int
) -> tuple[Stretch, ...]:
    """The run's phases in order; UserError where the length of their rows cannot be known, or options clash."""
    data = described(config, run.data.path, seq_len, vocab_size)
    found = []
    for number, own in enumerate(run.train.phases, 1):
        rows = described_phase(config, own.path, number, data) if own.path else data
        train = dataclasses.replace(
            run.train,
            phases=(),
            steps=own.steps,
            batch=own.batch or run.train.batch,
            accumulation=own.accumulation or run.train.accumulation,
        )
        optim = run.optim
        if own.peak_lr:
            optim = dataclasses.replace(optim, peak_lr=own.peak_lr, warmup=own.warmup)
        alone = dataclasses.replace(run, train=train, optim=optim)
        found.append(Stretch(alone, rows, number, len(run.train.phases)))
    return tuple(found) or (Stretch(run, data),)


def described(config: str, path: str, seq_len: int | None, vocab_size: int) -> Prepared:
    """The data a run will have: the prepared folder at `path`, else one of this shape that is not there yet.

    Without `seq_len`, the rows are as long as the command in the config file's first lines prepares them.
    """
    if path:
        found = open_prepared(path, whole=False)
        if seq_len not in (None, found.seq_len):
            raise UserError(
                f"--seq-len {seq_len}, but {path} has rows of {found.seq_len} tokens; leave one out"
            )
        return found
    length = seq_len or _usual_length(config)
    if length is None:
        raise UserError(
            f"how long will the rows be? The first lines of {config} do not say --seq-len; "
            "give --seq-len N or --config.data.path=FOLDER"
        )
    if vocab_size < 6:
        raise UserError(f"--vocab-size {vocab_size} has no room beside the five special tokens")
    return _not_there_yet(length, vocab_size)


def described_phase(config: str, path: str, number: int, data: Prepared) -> Prepared:
    """The same for the folder of one phase of a run on `data`."""
    if remote.is_remote(path) or Path(path).exists():
        return open_prepared(path, whole=False)
    length = _usual_length(config, path)
    if length is None:
        raise UserError(
            f"train.phases[{number - 1}]: {path} is not there, and the first lines of {config} do not prepare it "
            f"(--seq-len N --output {path}); prepare it, or give another config"
        )
    return _not_there_yet(length, data.vocab_size)


def _usual_length(config: str, output: str = "") -> int | None:
    """--seq-len of the command, in the config's first lines, that prepares `output`; of the first one without."""
    name = re.sub(r"(\.py|^[^:]*):.*", r"\1", config)  # without its argument
    said = ast.get_docstring(ast.parse(find_config(name).read_text())) or ""
    for line in said.replace("\\\n", " ").splitlines():
        length = re.search(r"--seq-len[ =](\d+)", line)
        folder = re.search(r"--output[ =](\S+)", line)
        if length and (not output or (folder and Path(folder[1]) == Path(output))):
            return int(length[1])
    return None


def _not_there_yet(seq_len: int, vocab_size: int) -> Prepared:
    return Prepared(
        path=Path("data-not-prepared-yet"),
        seq_len=seq_len,
        rows={"train": 0, "valid": 0},
        vocab_size=vocab_size,
        special=SpecialIds(0, 1, 2, 3, 4),
        tokenizer_hash="",
        fingerprint="",
        info={},
    )
