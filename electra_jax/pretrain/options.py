"""All the options of a pretraining run in one frozen tree, built from a config and the prepared data."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from electra_jax import userfile
from electra_jax.data import order, windows
from electra_jax.data.source import Prepared, Source, open_prepared
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.optim import OptimSpec
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective import registry, sentence
from electra_jax.objective.protocol import Objective
from electra_jax.quantities import seconds_of
from electra_jax.spec import UserError, from_config, unknown_name
from electra_jax.workdir import usercode

SECTIONS = ("model", "objective", "optim", "train", "data", "mesh", "report")


@dataclass(frozen=True, kw_only=True)
class PhaseSpec:
    """An entry of `train.phases`; what it leaves out is the run's."""

    steps: int  # steps of this stretch
    path: str = ""  # folder of its prepared data; empty: data.path
    batch: int = 0  # rows of a step; 0: the run's
    accumulation: int = 0  # micro-batches of a step; 0: the run's
    peak_lr: float = (
        0.0  # above 0: the learning rate's schedule begins anew with the phase and ends with it
    )
    warmup: int = 0  # steps of warmup, of a schedule of its own
    decay_steps: int = 0  # wsd: its last steps, in which the rate comes down to 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"train.phases: steps={self.steps} of a phase must be at least 1")
        for name in ("batch", "accumulation", "peak_lr", "warmup", "decay_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"train.phases: {name}={getattr(self, name)} must not be negative")
        for name in ("warmup", "decay_steps"):
            if getattr(self, name) and not self.peak_lr:
                raise UserError(
                    f"train.phases: {name}={getattr(self, name)} of a phase needs its peak_lr: without one it is under "
                    "the run's"
                )


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The config section `train`; counts are steps unless said otherwise."""

    steps: int  # steps of the whole run; the learning rate's schedule ends here
    batch: int  # rows of a step, over all devices and micro-batches
    accumulation: int  # micro-batches of a step
    seed: int  # seed of parameters, data order, masks, samples and dropout
    log_every: int  # steps between two lines of metrics
    eval_every: int  # steps between two evaluations on held-out rows
    eval_batches: int  # batches of held-out rows, the same each time
    checkpoint_every: int  # steps between two checkpoints
    keep_last: int  # how many of the newest checkpoints stay
    keep_every: int  # keep checkpoints at multiples of this for good; 0: none
    max_skipped: int  # steps in a row that may have a loss that is not finite; more end the run
    stop_at: int = 0  # step at which this start saves and ends, to go on later; 0: the last one
    budget: str = ""  # time for training, such as 24h: the rate ends with it, and the run depends on the clock
    average: float = (
        0.0  # decay of an average of the weights kept beside them, such as 0.999; 0: none
    )
    phases: tuple[PhaseSpec, ...] = ()  # stretches on other data or batches; empty: there is one

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "accumulation",
            "log_every",
            "eval_every",
            "checkpoint_every",
            "keep_last",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)} must be at least 1")
        if self.stop_at < 0:
            raise UserError(f"train.stop_at={self.stop_at} must be a step, or 0 for the last one")
        if self.budget:
            seconds_of(self.budget, "train.budget")
            if self.phases:
                raise UserError(
                    f"train.budget={self.budget} with train.phases: how the time is shared among phases is not known; "
                    "leave one out"
                )
        if self.batch % self.accumulation:
            raise UserError(
                f"train.batch={self.batch} is not a multiple of train.accumulation={self.accumulation}; "
                f"the nearest batch that is: {_nearest_multiple(self.batch, self.accumulation)}"
            )
        if self.phases and (total := sum(phase.steps for phase in self.phases)) != self.steps:
            raise UserError(
                f"train.phases have {total} steps together, but train.steps={self.steps}; make them equal"
            )

    @property
    def budget_s(self) -> float | None:
        """Seconds of the budget; None without one."""
        return seconds_of(self.budget, "train.budget") if self.budget else None

    @property
    def ends_at(self) -> int:
        """The step after which this start of the run ends."""
        return min(self.stop_at or self.steps, self.steps)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The config section `data`."""

    path: str  # the folder that `electra-jax prepare` wrote
    window: int = 0  # shards whose rows are mixed at a time and held on disk; 0: all of them

    def __post_init__(self) -> None:
        if self.window < 0:
            raise UserError(
                f"data.window={self.window} must be a number of shards, or 0 for the whole folder"
            )

    def open(self, path: str = "") -> Prepared:
        """The folder of the config or another one, as the order of its rows needs it."""
        return open_prepared(path or self.path, whole=not self.window)


@dataclass(frozen=True, kw_only=True)
class ReportSpec:
    """The config section `report`."""

    tensorboard: bool  # write TensorBoard's events into the workdir
    wandb: str  # project of Weights & Biases; empty: off


@dataclass(frozen=True)
class Phase:
    """A stretch of a run on one prepared folder with one batch: steps first .. last - 1."""

    data: Prepared
    batch: int
    accumulation: int
    first: int
    last: int
    read: int = 0  # rows of these data that earlier phases had
    own: PhaseSpec | None = None  # what the config says of this phase
    window: int = 0  # shards whose rows are mixed at a time; 0: all

    def rows(self, step: int, seed: int) -> np.ndarray:
        """The rows of the step's batch: the run's data order, a function of the seed."""
        count = self.data.rows["train"]
        if self.window:
            return self._windows(seed).rows(step - self.first, self.batch, self.read)
        return order.rows(step - self.first, self.batch, count, seed, self.read)

    @property
    def lookahead(self) -> int:
        """Steps before which the rows of a step are announced, a whole window of them; 0 where nothing is fetched."""
        if not self.window or self.data.cache is None:
            return 0
        return -(-self._windows(0).most_rows // self.batch)

    def source(self) -> Source:
        """The rows to train on."""
        return self.data.source("train", self.window or None)

    def check_room(self) -> None:
        """UserError where local disk cannot hold the window that is read and the one that comes."""
        if self.window and self.data.cache is not None:
            largest = sorted(s["bytes"] for s in self.data.shards("train"))[-2 * self.window :]
            self.data.cache.check_room(sum(largest), f"two windows of {self.window} shards")

    def _windows(self, seed: int) -> windows.Windows:
        made: dict[int, windows.Windows] = self.__dict__.setdefault("_made", {})
        if seed not in made:
            rows = np.array([s["rows"] for s in self.data.shards("train")], np.int64)
            made[seed] = windows.Windows(rows, self.window, seed)
        return made[seed]


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A whole run; `objective` stays a section, since each objective declares its own options."""

    model: ModelSpec
    objective: Mapping[str, Any]
    optim: OptimSpec
    train: TrainSpec
    data: DataSpec
    mesh: MeshSpec
    report: ReportSpec

    def dimensions(self, vocab_size: int) -> Dimensions:
        """The model's dimensions for this vocabulary."""
        return Dimensions(self.model, vocab_size)

    def phases(self, data: Prepared) -> tuple[Phase, ...]:
        """The run as a list of phases, each compiled once. Raises UserError for data of another tokenizer."""
        t = self.train
        if not t.phases:
            return (Phase(data, t.batch, t.accumulation, 0, t.steps, window=self.data.window),)
        found: list[Phase] = []
        read: dict[str, int] = {}
        for own in t.phases:
            rows = self.data.open(own.path) if own.path else data
            if rows.tokenizer_hash != data.tokenizer_hash:
                raise UserError(
                    f"{own.path} was prepared with another tokenizer than {data.path}; prepare it with "
                    f"--tokenizer {data.path / 'tokenizer'}"
                )
            batch, parts = own.batch or t.batch, own.accumulation or t.accumulation
            if batch % parts:
                raise UserError(
                    f"train.phases: batch={batch} is not a multiple of accumulation={parts}"
                )
            first = found[-1].last if found else 0
            before = read.get(rows.fingerprint, 0)
            found.append(
                Phase(rows, batch, parts, first, first + own.steps, before, own, self.data.window)
            )
            read[rows.fingerprint] = before + own.steps * batch
        return tuple(found)

    def schedule(self, phase: Phase) -> tuple[OptimSpec, int, int]:
        """(optimizer, first step, number of steps) of the schedule a phase is under: the run's or its own."""
        if phase.own is None or not phase.own.peak_lr:
            return self.optim, 0, self.train.steps
        names = ("peak_lr", "warmup", "decay_steps")
        own = replace(self.optim, **{name: getattr(phase.own, name) for name in names})
        return own, phase.first, phase.last - phase.first

    def make_objective(self, data: Prepared) -> Objective:
        """The objective for this data."""
        return registry.make(
            self.objective, self.model, data.vocab_size, data.special, data.seq_len
        )


# The dataclass of every section but `objective`, whose options each objective declares.
SPECS = {
    "model": ModelSpec,
    "optim": OptimSpec,
    "train": TrainSpec,
    "data": DataSpec,
    "mesh": MeshSpec,
    "report": ReportSpec,
}


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the defaults of keys it lacks: those that came after it was written."""
    full = dict(config)
    for name, spec in SPECS.items():
        if isinstance(config.get(name), Mapping):
            defaults = {f.name: f.default for f in fields(spec) if f.default is not MISSING}
            # As JSON gives them back, so that they equal what was written.
            plain = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
            full[name] = {**plain, **config[name]}
    section = config.get("objective")
    if isinstance(section, Mapping):
        own = userfile.is_file(section.get("name"))  # which may be gone
        full["objective"] = {**registry.of_all(), **section} if own else registry.completed(section)
    return full


def with_own_options(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config with the options of the objective that it, or an override, names, as far as they have defaults: so
    that an override can set them.
    """
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    section = plain.get("objective")
    if not isinstance(section, Mapping):
        return plain
    named = [o.partition("=")[2] for o in overrides if o.startswith("objective.name=")]
    name = named[-1] if named else section.get("name")
    found = registry.completed({**section, "name": name})
    return plain | {"objective": {**found, "name": section.get("name")}}


def run_spec(config: Mapping[str, Any], workdir: str | Path | None = None) -> RunSpec:
    """The checked options of a config; UserError names the section and key that is wrong.

    `workdir`: that of the run, which may keep a user's own objective.
    """
    for name in config:
        if name not in SECTIONS:
            raise unknown_name("config section", str(name), SECTIONS)
    missing = [name for name in SECTIONS if name not in config]
    if missing:
        raise UserError(f"config lacks the section{'s' * (len(missing) > 1)} {', '.join(missing)}")
    registry.check_name(config["objective"])
    return RunSpec(
        model=from_config(ModelSpec, config["model"], "model"),
        objective=usercode.resolved(config["objective"], workdir),
        optim=from_config(OptimSpec, config["optim"], "optim"),
        train=from_config(TrainSpec, config["train"], "train"),
        data=from_config(DataSpec, config["data"], "data"),
        mesh=from_config(MeshSpec, config["mesh"], "mesh"),
        report=from_config(ReportSpec, config["report"], "report"),
    )


def check(run: RunSpec, phase: Phase, devices: int) -> None:
    """Raises UserError for options that clash with the data or with each other."""
    check_length(run, phase)
    phase.check_room()
    rows = phase.batch // phase.accumulation
    if rows % devices:
        raise UserError(
            f"train.batch={phase.batch} / accumulation={phase.accumulation} = {rows} rows a micro-batch do not divide "
            f"over {devices} devices; the nearest batch that does is "
            f"{_nearest_multiple(rows, devices) * phase.accumulation}"
        )


def check_length(run: RunSpec, phase: Phase) -> None:
    """Raises UserError for rows longer than the model's positions, and for pairs of segments without types for them."""
    data = phase.data
    sentence.check_data(run.objective, run.model, data)
    untyped = run.model.has_types and run.model.types < 2
    if untyped and data.info.get("options", {}).get("segments") == "pair":
        raise UserError(
            f"data at {data.path} has rows of two segments, but model.types={run.model.types}; prepare it with "
            "--segments full or set --config.model.types=2"
        )
    if data.seq_len > run.model.positions:
        raise UserError(
            f"data at {data.path} has rows of {data.seq_len} tokens, more than model.positions={run.model.positions}; "
            f"prepare it with --seq-len {run.model.positions} or set --config.model.positions={data.seq_len}"
        )


def _nearest_multiple(value: int, of: int) -> int:
    return max(1, round(value / of)) * of
