"""A fine-tuning command before it trains: everything is read, encoded and checked here."""

import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from electra_jax import remote, userfile
from electra_jax.finetune import order, own, record, rows, start
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import (
    DECAYS,
    RATES,
    SHORTEST,
    DataOptions,
    Options,
    by_width,
)
from electra_jax.finetune.order import Order, Schedule
from electra_jax.finetune.program import StepSpec
from electra_jax.finetune.record import Run
from electra_jax.finetune.rows import Rows, Split
from electra_jax.finetune.start import Start
from electra_jax.spec import UserError, check_range, unknown_name
from electra_jax.tasks import custom
from electra_jax.tasks import task as tasks
from electra_jax.tasks.files.wanted import unknown_label
from electra_jax.tasks.known import catalog
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer

MOST_STEPS = 10_000_000  # of a run; each is planned before the first
FEW = 4  # examples that a user's own task is tried on before it trains
UNKNOWN_SHARE = 0.1  # of unknown tokens, above which the tokenizer is hardly the right one


@dataclass(frozen=True)
class TaskData:
    """A task with its data: `splits` are those that are scored or predicted, "dev" among them."""

    task: Task  # with its score range
    labels: tuple[str, ...]
    head: HeadSpec
    max_len: int
    train: Rows
    splits: Mapping[str, Split]
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """All of a command."""

    options: Options
    start: Start
    data: tuple[TaskData, ...]
    runs: tuple[Run, ...]
    schedule: Schedule
    spec: StepSpec
    eval_buckets: tuple[int, ...]

    def task(self, name: str) -> TaskData:
        """The data of a task."""
        return next(d for d in self.data if d.task.name == name)


def make(options: Options) -> Plan:
    """Reads encoder and data and checks that they fit. Raises UserError; trains and writes nothing."""
    asked = options.data
    chosen = [choose(name, asked) for name in options.tasks]
    _check_tasks(options, asked, chosen)
    # Everything is read here, and in memory afterwards.
    given = (asked.dir, asked.train, asked.dev, asked.test, asked.tokenizer)
    with remote.inputs(*given) as (folder, train, dev, test, tokenizer):
        asked = dataclasses.replace(
            asked, dir=folder, train=train, dev=dev, test=test, tokenizer=tokenizer
        )
        return _make(options, asked, chosen)


def _make(options: Options, asked: DataOptions, chosen: Sequence[Task]) -> Plan:
    found = start.read(options.init, options.model, asked.tokenizer)
    if asked.max_len:
        check_range("data.max_len", asked.max_len, f"[{SHORTEST}, {found.dims.spec.positions}]")
    data = tuple(_read(task, options, asked, found) for task in chosen)
    t, dims = options.train, found.dims
    everything = np.concatenate([d.train.lengths for d in data])
    longest = max(d.max_len for d in data)
    epochs = [d.task.epochs if t.epochs is None else t.epochs for d in data]
    _check_steps([len(d.train) for d in data], epochs, t.batch)
    price = order.STEP_PRICE / max(epochs)
    buckets = order.bucket_lengths(everything, t.buckets, longest, price)
    orders = [Order(d.train.lengths, buckets, t.batch, t.seed) for d in data]
    schedule = order.schedule(orders, epochs, t.task_power, t.seed)
    rate = options.optim.peak_lr
    rates = t.sweep or (by_width(RATES, dims.spec.width) if rate is None else rate,)
    decay = options.optim.layer_decay
    if options.optim.frozen_layers > dims.spec.layers:
        raise UserError(
            f"optim.frozen_layers={options.optim.frozen_layers}, but the encoder has "
            f"{dims.spec.layers} layers"
        )
    spec = StepSpec(
        network=NetworkSpec(dims=dims, heads=tuple((d.task.name, d.head) for d in data)),
        optim=options.optim,
        layer_decay=by_width(DECAYS, dims.spec.width) if decay is None else decay,
        reduction=t.reduction,
        steps=schedule.steps,
        accumulation=t.accumulation,
    )
    for given, d in zip(options.tasks, data, strict=True):
        if userfile.is_file(given):
            dev = d.splits["dev"]
            few = dev.examples[:FEW]
            shown = encode(d.task, d.labels, few, dev.where, found.tokenizer, d.max_len, asked)
            own.check(given, spec.network, d, shown)
    scored = np.concatenate([s.rows.lengths for d in data for s in d.splits.values()])
    return Plan(
        options,
        found,
        data,
        tuple(record.plan_runs(t.seed, t.seeds, rates)),
        schedule,
        spec,
        order.bucket_lengths(scored, t.buckets, longest, order.PREDICTION_PRICE / max(epochs)),
    )


def _check_steps(counts: Sequence[int], epochs: Sequence[float], batch: int) -> None:
    steps = sum(count * times / batch for count, times in zip(counts, epochs, strict=True))
    if steps > MOST_STEPS:
        most = max(epochs) * MOST_STEPS / steps
        raise UserError(
            f"train.epochs={max(epochs):g} would be {steps:.3g} steps; a run has at most "
            f"{MOST_STEPS:,}, with this batch and these data {most:.3g} epochs"
        )


def choose(name: str, asked: DataOptions) -> Task:
    """The known task of this name, the user's own by kind and columns, or the one of their file."""
    if userfile.is_file(name):
        return own.load(name)
    if name in custom.MAKERS:
        return custom.make(name, **asked.columns)
    try:
        return catalog.get(name)
    except UserError:
        raise unknown_name("task", name, (*catalog.TASKS, *custom.MAKERS)) from None


def head_spec(task: Task, labels: Sequence[str], options: Options, family: str) -> HeadSpec:
    """The head that a task gets on an encoder of this family."""
    outputs = kinds.get(task.kind).outputs(labels)
    h, m = options.head, options.model
    return HeadSpec(
        kind=task.kind,
        style=h.style,
        outputs=outputs,
        dropout=h.dropout,
        init_std=m.init_std,
        dtype=m.dtype,
        joint=h.joint,
        answerable=h.answerable,
        answerable_weight=h.answerable_weight,
        beam=h.beam,
        family=family,
    )


def encode(
    task: Task,
    labels: Sequence[str],
    examples: Sequence[Any],
    where: str,
    words: Tokenizer,
    max_len: int,
    asked: DataOptions,
) -> Split:
    """A split as it is scored or predicted."""
    kind, room = kinds.get(task.kind), asked.room(max_len)
    made = kind.features(task, examples, words, room, labels)
    held = rows.of_features(made, kind.labels(task, made), words.special.pad)
    return Split(where, examples, made, held, tasks.labelled(examples))


def _check_tasks(options: Options, asked: DataOptions, chosen: Sequence[Task]) -> None:
    if not chosen:
        raise UserError("no task; write --config configs/finetune.py:sst2, or tasks=(...)")
    if len({task.name for task in chosen}) < len(chosen):
        raise UserError(f"tasks={options.tasks} names a task twice")
    if len(chosen) > 1 and (asked.train or asked.dev or asked.test):
        raise UserError("--train, --dev and --test are of one task; use --data-dir with several")
    columns = [name for name, value in asked.columns.items() if value is not None]
    columns = [name for name in columns if name != "scheme"]  # which is always given
    for task in chosen:
        given = [f"data.{name}" for name in columns]
        if (task.files or task.name not in custom.MAKERS) and given:
            raise UserError(f"task {task.name} knows its columns; leave {', '.join(given)} out")
        unused = [
            f"data.{name}" for name in columns if name not in custom.USES.get(task.name, columns)
        ]
        if unused:
            names = ", ".join(custom.USES[task.name])
            print(
                f"task {task.name} makes no use of {', '.join(unused)}; it has {names}",
                file=sys.stderr,
            )
        if not task.files and not (asked.train and asked.dev):
            raise UserError(f"task {task.name}: give your files, --train FILE --dev FILE")
        if not asked.dir and not (asked.train and asked.dev):
            raise UserError(f"task {task.name}: no data; give --data-dir, or --train and --dev")
        if "train" not in task.files and not asked.train:
            raise UserError(f"task {task.name} has no training data; predict with another task's")


def _examples(
    task: Task, asked: DataOptions
) -> tuple[Task, tuple[str, ...], Mapping[str, str], dict[str, list[Any]]]:
    """(task, classes, split -> place, split -> examples); the training data say what is a class."""
    given = {"train": asked.train, "dev": asked.dev, "test": asked.test}
    wheres = {name: where for name, where in given.items() if where}
    for name in dict.fromkeys(("train", "dev", *task.splits)):
        if name in wheres or not asked.dir:
            continue
        if name in ("train", "dev") or _exists(task, asked.dir, name):
            wheres[name] = asked.dir
    examples = {"train": task.read(wheres["train"], "train", asked.carry_on)}
    labels: tuple[str, ...] = ()
    if kinds.get(task.kind).has_classes:
        labels = tasks.labels_of(task, examples["train"])
        task = tasks.with_labels(task, labels)
        for key, label in (("data.positive", task.positive), ("data.negative", task.negative)):
            if label is not None and label not in labels:
                raise unknown_label(key, label, labels)
    for name, where in wheres.items():
        if name != "train":
            examples[name] = task.read(where, name, asked.carry_on)
        if labels:
            tasks.check_labels(f"{where} ({name})", examples[name], labels)
    task = kinds.get(task.kind).for_training(task, examples["train"])
    return task, labels, wheres, examples


def _read(task: Task, options: Options, asked: DataOptions, found: Start) -> TaskData:
    task, labels, wheres, examples = _examples(task, asked)
    trained = examples.pop("train")
    max_len = min(asked.max_len or task.max_len, found.dims.spec.positions)
    if max_len < (asked.max_len or task.max_len):
        print(
            f"{task.name}: texts are cut at {max_len} tokens, all the positions this encoder has",
            file=sys.stderr,
        )
    if options.train.examples:
        chosen = order.subset(len(trained), options.train.examples, options.train.seed)
        trained = [trained[i] for i in chosen]
    if task.unordered and asked.both_orders:
        trained = tasks.both_orders(trained)
    if not tasks.labelled(trained):
        raise UserError(
            f"task {task.name}: {wheres['train']} has training examples without a label"
        )
    words = found.tokenizer
    kind, room = kinds.get(task.kind), asked.room(max_len)
    made = kind.features(task, trained, words, room, labels, training=True)
    train = rows.of_features(made, kind.labels(task, made), words.special.pad)
    splits = {
        name: encode(task, labels, examples[name], wheres[name], words, max_len, asked)
        for name in examples
    }
    if not len(train):
        raise UserError(f"task {task.name}: no training example is left")
    if found.dims.spec.has_types:
        check_types(task.name, found.dims.spec.types, train, splits)
    unknown = np.mean(train.ids == words.special.unk)
    if unknown > UNKNOWN_SHARE:
        print(
            f"{task.name}: {unknown:.0%} of the training tokens are unknown to the encoder's tokenizer; "
            "is it the one of this model and language?",
            file=sys.stderr,
        )
    head = head_spec(task, labels, options, found.dims.spec.family)
    digest = _fingerprint([train, *(splits[name].rows for name in sorted(splits))])
    return TaskData(task, labels, head, max_len, train, splits, digest)


def check_types(name: str, known: int, train: Rows, splits: Mapping[str, Split]) -> None:
    """Raises UserError for pairs of texts where the encoder knows one type of token alone."""
    if known < 2 and any(part.types.any() for part in (train, *(s.rows for s in splits.values()))):
        raise UserError(
            f"task {name} has pairs of texts, and this encoder has one type of token (model.types, type_vocab_size), "
            "none for the second text; use an encoder with two"
        )


def _exists(task: Task, folder: str, split: str) -> bool:
    """Whether an optional split is there."""
    if not os.path.isdir(folder):
        return False  # of TFDS only train and dev are read
    try:
        task.file(folder, split)
    except UserError:
        return False
    return True


def _fingerprint(parts: Sequence[Rows]) -> str:
    """SHA-256 of the encoded data."""
    digest = hashlib.sha256()
    for part in parts:
        for array in (part.ids, part.types, part.begin, *part.labels.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
