"""All the options of a fine-tuning command in one frozen tree, and what they mean for an encoder and its tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from electra_jax import userfile
from electra_jax.learn.mesh import MeshSpec
from electra_jax.learn.optim import OptimSpec
from electra_jax.model.electra import ModelSpec
from electra_jax.model.options import ELECTRA, EncoderOptions
from electra_jax.pretrain.options import ReportSpec
from electra_jax.spec import (
    UserError,
    check_choice,
    check_range,
    from_config,
    load_config,
    overridden,
    to_dict,
    unknown_name,
)
from electra_jax.tasks.features import Room

# The paper's fine-tuning rates by model (Table 7): small has width 256, base 768, large 1024.
RATES = ((512, 3e-4), (1023, 1e-4), (None, 5e-5))
DECAYS = ((1023, 0.8), (None, 0.9))
SHORTEST = 8  # tokens of a row
MOST_SEED = 2**32 - 1  # what the random numbers take


@dataclass(frozen=True, kw_only=True)
class ModelOptions(EncoderOptions):
    """The config section `model`: dimensions of a random encoder; the rest applies to any."""

    def __post_init__(self) -> None:
        check_range("model.init_std", self.init_std, "(0, inf)")

    def random(self) -> ModelSpec:
        """The model of an encoder that was never trained."""
        return ModelSpec(
            **dataclasses.asdict(self), generator_size=1.0, generator_layers=1.0, tying="all"
        )

    def applied(self, found: ModelSpec) -> ModelSpec:
        """A pretrained model's dimensions with this section's dropouts and precision."""
        ours = ["attention_dropout", "dtype", "residual_dtype", "remat"]
        ours += ["embedding_dropout", "mlp_dropout"]  # refused of an encoder that has no such thing
        ours += ["dropout"] if found.family == ELECTRA else []  # which every recipe has
        return dataclasses.replace(
            found,
            **{name: getattr(self, name) for name in ours},
            generator_size=1.0,
            generator_layers=1.0,
            tying="all",
        )


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """The config section `head`."""

    style: str  # hf: transformers' heads, which export | original: those of the released code
    dropout: float
    joint: bool  # original qa: predict the end given the start
    answerable: bool  # original qa: a classifier for questions without an answer
    answerable_weight: float
    beam: int

    def __post_init__(self) -> None:
        check_choice("head.style", self.style, ("hf", "original"))
        check_range("head.dropout", self.dropout, "[0, 1)")
        check_range("head.answerable_weight", self.answerable_weight, "[0, inf)")
        check_range("head.beam", self.beam, "[1, inf)")


@dataclass(frozen=True, kw_only=True)
class OptimOptions:
    """The config section `optim`; None takes the paper's value for the model's width."""

    # adam: the original's, without bias correction | adamw | lamb | muon | stable_adamw
    name: str
    peak_lr: float | None
    layer_decay: float | None  # of the learning rate, a layer
    layer_decay_off_by_one: bool  # as in the released code: one more decay under the head
    warmup: float  # share of all steps
    lr_power: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip_norm: float
    frozen_layers: int  # from below, embeddings included; -1: the embeddings alone
    momentum: float = 0.95  # muon: decay of the mean of a matrix's gradient
    adam_ratio: float = 1.0  # muon: rate of what Adam updates, as a ratio of the matrices' rate
    matrices: str = "hidden"  # muon: its matrices: hidden (no table, no head's last layer) | all
    consistent_rms: float = 0.0  # muon: size of a step, such as 0.2; 0: by shape

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise UserError(f"optim.warmup={self.warmup} must be a share of all steps, in [0, 1]")
        if self.peak_lr is not None:
            check_range("optim.peak_lr", self.peak_lr, "[0, inf)")
        if self.layer_decay is not None:
            check_range("optim.layer_decay", self.layer_decay, "(0, 1]")
        check_range("optim.lr_power", self.lr_power, "[0, inf)")
        check_range("optim.weight_decay", self.weight_decay, "[0, inf)")
        check_range("optim.clip_norm", self.clip_norm, "(0, inf)")
        check_range("optim.beta1", self.beta1, "[0, 1)")
        check_range("optim.beta2", self.beta2, "[0, 1)")
        check_range("optim.eps", self.eps, "(0, inf)")
        check_range("optim.frozen_layers", self.frozen_layers, "[-1, inf)")
        self.spec(1, 0.0)

    def spec(self, steps: int, peak_lr: float) -> OptimSpec:
        """The optimizer of a run of so many steps."""
        return OptimSpec(
            name=self.name,
            peak_lr=peak_lr,
            warmup=round(self.warmup * steps),
            lr_power=self.lr_power,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            momentum=self.momentum,
            adam_ratio=self.adam_ratio,
            matrices=self.matrices,
            consistent_rms=self.consistent_rms,
        )


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The config section `train`."""

    epochs: float | None  # None: the task's
    batch: int
    seed: int  # of the first run; the others count up. Also orders the buckets, for all of them
    seeds: int  # runs
    sweep: tuple[float, ...]  # peak learning rates, each with all seeds; empty: the one of optim
    together: str  # auto | yes: the runs in one compiled program | no: one after another | measure
    buckets: int  # lengths that batches are padded to, at most; each is a compilation
    reduction: str  # of the loss over a batch: mean | sum, as in the released code
    select: str  # last: the parameters after the last epoch | best: of the best epoch on dev
    patience: int  # epochs without a better dev score after which a run stops; 0: never
    examples: int  # training examples, drawn by seed; 0: all
    task_power: float  # several tasks: share of the steps by (examples)^power
    log_every: int  # steps
    checkpoint_every: int  # steps
    max_skipped: int
    accumulation: int = 0  # micro-batches of a step; 0: chosen, for a CPU's caches

    def __post_init__(self) -> None:
        check_range("train.seed", self.seed, f"[0, {MOST_SEED}]")
        check_range("train.task_power", self.task_power, "[0, inf)")
        check_choice("train.together", self.together, ("auto", "yes", "no", "measure"))
        check_choice("train.reduction", self.reduction, ("mean", "sum"))
        check_choice("train.select", self.select, ("last", "best"))
        counts = ("batch", "seeds", "buckets", "log_every", "checkpoint_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)} must be at least 1")
        for name in ("accumulation", "patience", "examples", "max_skipped"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name}={getattr(self, name)} must not be negative")
        last = self.seed + self.seeds - 1
        check_range("train.seed + train.seeds - 1", last, f"[0, {MOST_SEED}]")
        if self.epochs is not None and self.epochs <= 0:
            raise UserError(f"train.epochs={self.epochs} must be above 0")
        if any(rate <= 0 for rate in self.sweep):
            raise UserError(f"train.sweep={self.sweep}: a learning rate must be above 0")


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """The config section `eval`."""

    batch: int

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"eval.batch={self.batch} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The config section `data`; empty strings are not given, None is the usual name of a column."""

    dir: str  # the tasks' files in their official layouts, or "tfds"
    train: str  # files of one task, in place of those in `dir`
    dev: str
    test: str
    tokenizer: str  # of a random encoder
    max_len: int  # tokens a row; 0: the task's
    doc_stride: int  # qa: tokens from window to window
    max_question: int  # qa: tokens of a question
    carry_on: bool  # pass over answers that are not where the file says
    both_orders: bool  # double the training pairs of tasks whose texts may change places
    text: str | None
    pair: str | None
    label: str | None
    id: str | None
    labels: tuple[str, ...] | None
    score_range: tuple[float, float] | None
    words: str | None
    tags: str | None
    # Of the entity tags that are learned; None: plain tags, such as parts of speech.
    scheme: str | None
    question: str | None
    context: str | None
    answer: str | None
    answer_start: str | None
    choices: tuple[str, ...] | None
    positive: str | None
    negative: str | None
    tag_names: tuple[str, ...] | None = None  # of tags that the files hold as numbers

    def __post_init__(self) -> None:
        if self.max_len:
            check_range("data.max_len", self.max_len, f"[{SHORTEST}, inf)")
        check_range("data.doc_stride", self.doc_stride, "[1, inf)")
        check_range("data.max_question", self.max_question, "[1, inf)")
        if self.labels is not None and (len(self.labels) < 2 or _twice(self.labels)):
            raise UserError(f"data.labels={self.labels}: expected two or more, each once")
        if self.score_range is not None and self.score_range[0] >= self.score_range[1]:
            raise UserError(f"data.score_range={self.score_range}: expected the lower end first")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "DataOptions":
        """The checked section."""
        return from_config(cls, section, "data")

    def room(self, max_len: int) -> Room:
        """How much of a text goes into a row of at most `max_len` tokens."""
        return Room(max_len=max_len, doc_stride=self.doc_stride, max_question=self.max_question)

    @property
    def columns(self) -> dict[str, Any]:
        """What describes the user's own files, as `custom.make` takes it."""
        names = [f.name for f in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names[names.index("text") :]}


@dataclass(frozen=True, kw_only=True)
class Options:
    """A whole command."""

    init: str
    tasks: tuple[str, ...]
    data: DataOptions
    model: ModelOptions
    head: HeadOptions
    optim: OptimOptions
    train: TrainOptions
    eval: EvalOptions
    mesh: MeshSpec
    report: ReportSpec


# What each section becomes: it says of which type a key is whose value in the config is None.
TYPES: dict[str, type] = {
    "data": DataOptions,
    "model": ModelOptions,
    "head": HeadOptions,
    "optim": OptimOptions,
    "train": TrainOptions,
    "eval": EvalOptions,
    "mesh": MeshSpec,
    "report": ReportSpec,
}
SECTIONS = ("init", "tasks", *TYPES)


def recipe(name: str, overrides: Sequence[str]) -> ConfigDict:
    """The config that --config names, with overrides; a file with a `task` of its own is what is learned.

    Such a file may have `get_config` too; without one, or where that names no task, the rest is the usual recipe's or
    its own, and the task is the file's.
    """
    if not (userfile.is_file(name) and Path(name).is_file()):
        return load_config(name, overrides, TYPES)
    module = userfile.load(name, "config file", {})
    own = hasattr(module, "task")
    config = load_config("finetune" if own and not hasattr(module, "get_config") else name)
    if own and "tasks" in config and not config.tasks:
        config.tasks = (name,)
    return overridden(config, overrides, TYPES)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the section and the options that it lacks if it was written before there were any."""
    full = {"report": to_dict(ReportSpec(tensorboard=False, wandb="")), **config}
    if isinstance(full.get("optim"), Mapping):
        found = dataclasses.fields(OptimOptions)
        defaults = {f.name: f.default for f in found if f.default is not dataclasses.MISSING}
        full["optim"] = {**defaults, **full["optim"]}
    return full


def options(config: Mapping[str, Any]) -> Options:
    """The checked options of a config; UserError names the section and key that is wrong."""
    config = complete(config)
    if "objective" in config and "tasks" not in config:
        raise UserError(
            "this config is a recipe of pretrain; fine-tuning takes --config finetune:TASK, such as "
            "finetune:sst2 (docs/tasks.md lists the tasks), or finetune:classify for your own files"
        )
    for name in config:
        if name not in SECTIONS:
            raise unknown_name("config section", str(name), SECTIONS)
    missing = [name for name in SECTIONS if name not in config]
    if missing:
        raise UserError(f"config lacks the section{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return Options(
        init=config["init"],
        tasks=tuple(config["tasks"]),
        data=DataOptions.of(config["data"]),
        model=from_config(ModelOptions, config["model"], "model"),
        head=from_config(HeadOptions, config["head"], "head"),
        optim=from_config(OptimOptions, config["optim"], "optim"),
        train=from_config(TrainOptions, config["train"], "train"),
        eval=from_config(EvalOptions, config["eval"], "eval"),
        mesh=from_config(MeshSpec, config["mesh"], "mesh"),
        report=from_config(ReportSpec, config["report"], "report"),
    )


def _twice(names: tuple[str, ...]) -> bool:
    """Whether a name is there more than once."""
    return len(set(names)) < len(names)


def by_width(table: tuple[tuple[int | None, float], ...], width: int) -> float:
    """The value of the first row whose limit the width does not exceed."""
    return next(value for limit, value in table if limit is None or width <= limit)
