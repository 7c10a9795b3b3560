"""A run as its workdir and its data folder describe it: options, rows, what it has logged."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax import records, remote
from electra_jax.doctor.history import History
from electra_jax.spec import UserError
from electra_jax.workdir.record import RECORD, read_record

FINE_TUNED = "finetune.json"  # what a fine-tuned workdir has in place of a run's record
IMPORTED = "import.json"
FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class Stretch:
    """Steps `first` .. `last` - 1, with so many rows a step of so many tokens."""

    first: int
    last: int
    batch: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """`config` and `data` are those of the record; `counts` of the prepared folder, None where it is not there."""

    config: Mapping[str, Any]
    data: Mapping[str, Any]
    history: History
    stretches: tuple[Stretch, ...]
    counts: Mapping[str, Any] | None = None
    imported: bool = False

    def option(self, name: str, default: Any = None) -> Any:
        """An option by its full name, such as optim.peak_lr."""
        section, _, key = name.partition(".")
        return self.config.get(section, {}).get(key, default)

    @property
    def step(self) -> int:
        """The last step that the log knows of."""
        return self.history.last_step

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return int(self.option("train.steps"))

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.steps

    @property
    def length(self) -> int:
        """Tokens of a row, now."""
        return self._stretch(self.step).length

    def after_warmup(self, step: int) -> int:
        """Steps since the learning rate was at its peak; below 0 before."""
        return step - int(self.option("optim.warmup", 0) or 0)

    def tokens(self, step: int) -> float:
        """Tokens of the first `step` steps, padding included."""
        return float(sum(self._steps(s, step) * s.batch * s.length for s in self.stretches))

    def epochs(self, step: int) -> float:
        """How often each training row has been read; of a run in phases, as if all were of the same data."""
        rows = sum(self._steps(s, step) * s.batch for s in self.stretches)
        return rows / max(1, int(self.data["rows"].get("train", 0)))

    def _steps(self, stretch: Stretch, step: int) -> int:
        return max(0, min(step, stretch.last) - stretch.first)

    def _stretch(self, step: int) -> Stretch:
        return next((s for s in self.stretches if step <= s.last), self.stretches[-1])

    @property
    def began(self) -> int:
        """The step with which the present stretch began: metrics of other data do not compare."""
        return self._stretch(self.step).first


def opened(folder: str | Path) -> Run:
    """The run of a local workdir, its log read. Raises UserError for what is no workdir of pretraining."""
    folder = Path(folder)
    if not (folder / RECORD).exists() and (folder / FINE_TUNED).exists():
        raise UserError(
            f"{folder} is fine-tuned; doctor reads workdirs of pretraining, and the scores of this one are in its "
            "results.md"
        )
    record = read_record(folder)
    config, data = record["config"], record["data"]
    _check(config, folder / RECORD)
    history = History(folder)
    history.read_on()
    return Run(
        config=config,
        data=data,
        history=history,
        stretches=_stretches(config, data),
        counts=_counts(config["data"]["path"], data["fingerprint"]),
        imported=(folder / IMPORTED).exists(),
    )


def _check(config: Mapping[str, Any], where: Path) -> None:
    fix = "restore it or start another workdir"
    sections = ("train", "optim", "model", "objective", "data")
    records.check(config, dict.fromkeys(sections, dict[str, Any]), f"{where}, config", fix)
    train = {"steps": records.Whole(1), "batch": records.Whole(1), "phases": list[Any] | None}
    records.check(config["train"], train, f"{where}, config.train", fix)
    optim = {"peak_lr": float, "warmup": int | None}
    records.check(config["optim"], optim, f"{where}, config.optim", fix)
    records.check(config["data"], {"path": str}, f"{where}, config.data", fix)


def _stretches(config: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[Stretch, ...]:
    train = config["train"]
    phases = [phase for phase in train.get("phases") or () if isinstance(phase, Mapping)]
    if not phases:
        return (Stretch(0, train["steps"], train["batch"], data["seq_len"]),)
    found: list[Stretch] = []
    for phase in phases:
        first = found[-1].last if found else 0
        path = str(phase.get("path") or "")
        length = (_fingerprint(path) or {}).get("seq_len") if path else None
        batch = int(phase.get("batch") or train["batch"])
        last = first + int(phase.get("steps") or 0)
        found.append(Stretch(first, last, batch, length or data["seq_len"]))
    return tuple(found)


def _counts(path: str, fingerprint: str) -> Mapping[str, Any] | None:
    """What the prepared folder counted in its training text; None where it is gone or other data lie there."""
    info = _fingerprint(path, fingerprint)
    counts = (info or {}).get("counts")
    train = counts.get("train") if isinstance(counts, dict) else None
    return train if isinstance(train, dict) else None


def _fingerprint(path: str, expected: str = "") -> dict[str, Any] | None:
    try:
        if remote.is_remote(path):
            text = remote.read(remote.join(path, FINGERPRINT))
        else:
            text = (Path(path) / FINGERPRINT).read_bytes()
        if expected and hashlib.sha256(text).hexdigest() != expected:
            return None
        return records.parse_object(text, path)
    except (OSError, UserError):
        return None  # a run can be judged without its data
