"""What a run says about itself: metrics.jsonl, TensorBoard, Weights & Biases, the terminal.

A line of metrics.jsonl is one JSON object with `step`, `split` and the values; a value that is not
finite is null, since JSON has no name for it. Every (step, split) stands there once, however often
the run was killed: on a resume at step s, `rewind` drops what came after s, because those steps are
run again.
"""

import json
import math
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from electra_jax import files
from electra_jax.data.baselines import MODELS
from electra_jax.spec import UserError

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
# Lines of a log file that nobody watches: one in this many seconds says enough.
_QUIET_S = 10.0
# What the progress line of every training ends with, where the value is there.
_SPEED = {"tokens_per_s": "{:,.0f} tokens/s"}


class Report:
    """The outputs of one start of a run that continues after step `start`; a context manager.

    The first process of a run makes one; the others make a Silence.
    """

    def __init__(
        self,
        workdir: str | Path,
        start: int = 0,
        total: int | None = None,
        tensorboard: bool = False,
        wandb: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.workdir = Path(workdir)
        self._path = self.workdir / METRICS
        with files.disk_errors(self._path):
            self.workdir.mkdir(parents=True, exist_ok=True)
        self._seen = rewind(self.workdir, start)
        self._file = self._open()
        self._events = _event_writer(self.workdir / TENSORBOARD, start) if tensorboard else None
        self._wandb = _wandb_run(self.workdir, wandb, config or {}) if wandb else None
        self._bar = tqdm(total=total, initial=start, unit="step", disable=None, dynamic_ncols=True)
        self._start, self._total = start, total
        self._began = self._moved = time.monotonic()
        self._printed = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=error is not None)

    def has(self, step: int, split: str) -> bool:
        """Whether this line is already written (by this start, or kept from an earlier one)."""
        return (step, split) in self._seen

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Appends one line, whole; UserError for a full disk, ValueError for a second line."""
        if self.has(step, split):
            raise ValueError(f"{self._path} already has step {step}, split {split!r}")
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": step, "split": split, **plain}, allow_nan=False) + "\n"
        self._bring_back(step)
        with files.disk_errors(self._path):
            _write_all(self._file, line.encode())
        self._seen.add((step, split))
        numbers = {
            f"{split}/{n}": v for n, v in values.items() if isinstance(plain[n], int | float)
        }
        if self._events is not None:
            with files.disk_errors(self.workdir / TENSORBOARD):
                for name, value in numbers.items():
                    self._events.add_scalar(name, float(value), step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def _open(self) -> int:
        with files.disk_errors(self._path):
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _bring_back(self, step: int) -> None:
        """Begins anew what somebody has removed while it is written, with a warning: it would be written to nowhere."""
        if os.fstat(self._file).st_nlink == 0:
            self._warn_of(self._path, step)
            os.close(self._file)
            self._file = self._open()
        folder = self.workdir / TENSORBOARD
        if self._events is not None and not any(folder.glob(f"*.{os.getpid()}")):
            self._warn_of(folder, step)
            with files.disk_errors(folder):
                self._events.close()
            self._events = _event_writer(folder, step - 1)

    def _warn_of(self, path: Path, step: int) -> None:
        self.say(f"warning: {path} was removed during the run; it begins anew with step {step}")

    def progress(self, step: int, text: str = "") -> None:
        """Moves the progress bar to `step`; where there is no terminal, a plain line now and then."""
        self._moved = now = time.monotonic()
        if not self._bar.disable:
            if text:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        last = self._total is not None and step >= self._total
        if text and (last or now - self._printed >= _QUIET_S):
            self._printed = now
            of = f"/{self._total}" if self._total is not None else ""
            self.say(f"step {step}{of}  {text}{self._eta(step, now)}")

    def unpause(self) -> None:
        """What was done since the last step, such as compiling, says nothing about the time of those that follow."""
        now = time.monotonic()
        self._began += now - self._moved
        self._moved = now
        if not self._bar.disable:
            self._bar.unpause()

    def _eta(self, step: int, now: float) -> str:
        if self._total is None or step <= self._start or step >= self._total:
            return ""
        left = (now - self._began) / (step - self._start) * (self._total - step)
        return f"  {tqdm.format_interval(left)} left"

    def say(self, text: str) -> None:
        """One line on stderr, above the progress bar."""
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    def flush(self) -> None:
        """Returns when every line is on disk: call it before a checkpoint of the same step is saved."""
        with files.disk_errors(self._path):
            os.fsync(self._file)
        if self._events is not None:
            with files.disk_errors(self.workdir / TENSORBOARD):
                self._events.flush()

    def close(self, failed: bool = False) -> None:
        """Ends every output; `failed` is what Weights & Biases is told."""
        self._bar.close()
        if self._events is not None:
            with files.disk_errors(self.workdir / TENSORBOARD):
                self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(failed))
        os.close(self._file)


class Silence:
    """The report of a process that leaves reporting to the first one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def has(self, step: int, split: str) -> bool:
        """Never: the first process knows."""
        return False

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def progress(self, step: int, text: str = "") -> None:
        """Nothing."""

    def unpause(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def rewind(workdir: str | Path, step: int) -> set[tuple[int, str]]:
    """Drops the lines after `step` and what a kill left torn; returns the (step, split) that stay."""
    path = Path(workdir) / METRICS
    if not path.exists():
        return set()
    before = path.read_bytes()
    kept: dict[tuple[int, str], bytes] = {}
    for line in before.splitlines(keepends=True):
        key = _key(line)
        if key is not None and key[0] <= step:
            kept.setdefault(key, line)
    after = b"".join(kept.values())
    if after != before:
        files.write_bytes(path, after)
    return set(kept)


def _key(line: bytes) -> tuple[int, str] | None:
    """(step, split) of a whole line, None for a torn one."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
        return int(row["step"]), str(row["split"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def summary(values: Mapping[str, Any], shown: Mapping[str, str]) -> str:
    """The few values a person watches, for the progress line: metric -> its form ("mlm {:.3f}"), then the speed."""
    forms = {**shown, **_SPEED}
    known = [(name, form) for name, form in forms.items() if values.get(name) is not None]
    return "  ".join(
        form.format(float(values[name])) + _beside(values, name) for name, form in known
    )


def _beside(values: Mapping[str, Any], name: str) -> str:
    """What counting tokens achieves, in brackets."""
    there = {model: values.get(f"{name}_{model}") for model in MODELS}
    told = ", ".join(f"{model} {value:.3f}" for model, value in there.items() if value is not None)
    return f" ({told})" if told else ""


def _plain(value: Any) -> Any:
    """As JSON holds it: Python numbers, null for what is not finite."""
    if isinstance(value, np.generic) or (hasattr(value, "shape") and value.shape == ()):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_all(handle: int, data: bytes) -> None:
    """One call for a line, so that a kill leaves it whole; a disk that takes a part is full."""
    while data:
        data = data[os.write(handle, data) :]


def _event_writer(folder: Path, start: int) -> Any:
    """TensorBoard's event files, without TensorFlow; earlier events after `start` are hidden."""
    from tensorboardX import SummaryWriter

    with files.disk_errors(folder):
        # The name says the start: two starts within a second must not share a file.
        suffix = f".{start:010d}.{os.getpid()}"
        return SummaryWriter(
            str(folder), purge_step=start + 1 if start else None, filename_suffix=suffix
        )


def _wandb_run(workdir: Path, project: str, config: Mapping[str, Any]) -> Any:
    """The run of this workdir; later starts continue it under the same id."""
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            f"report.wandb={project!r} needs Weights & Biases: pip install 'electra_jax[wandb]'"
        ) from error
    path = workdir / "wandb.id"
    if not path.exists():
        files.write_text(path, secrets.token_hex(4) + "\n")
    return wandb.init(
        project=project,
        id=path.read_text("utf-8").strip(),
        resume="allow",
        dir=str(workdir),
        config=dict(config),
    )
