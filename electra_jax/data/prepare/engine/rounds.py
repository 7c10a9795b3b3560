"""The rounds of a preparation, one after the other, on whatever performs tasks; each is complete before the next."""

import collections
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data.prepare import build, heldout, shards
from electra_jax.data.prepare.engine import choice, copies, plan, store, survey, writing
from electra_jax.spec import UserError
from electra_jax.text.sources import documents

# Performs `plan.perform(root, task)` of each task, anywhere, in any order, under a name.
Perform = Callable[[str, str, Sequence[plan.Task]], None]


def run(perform: Perform, order: build.Order, root: str, folder: Path) -> build.Done:
    """Does the work of `build.prepare` as tasks that meet below `root`, and takes the shards to `folder`.

    Raises UserError for what tasks raise it for, and when after a round the outcome of a task is not there.
    """
    corpus, pieces = order.corpus, store.Store(root)
    rule = None
    if order.valid_fraction > 0:
        rule = heldout.plain_rule(order.job.seed, order.valid_fraction, corpus.stored)
    setting = plan.made(corpus, order.job, order.rows_per_shard, order.dedup, rule)
    plan.save(setting, pieces)
    every = range(len(setting.portions))

    def do(label: str, tasks: Sequence[plan.Task]) -> None:
        perform(label, root, tasks)
        _check(label, pieces, root, tasks)

    sizes = documents.sizes([*corpus.paths, *corpus.valid_paths])
    runs = survey.groups_of_files(list(sizes.values()), setting.longest)
    descriptions = [survey.Describe(files) for files in runs]
    surveys = [survey.Survey(portion) for portion in every]
    do("survey", [*surveys, *descriptions])
    counts = _counted(setting, pieces, surveys)

    places = range(setting.places)
    if order.dedup == "exact":
        do("copies", [copies.Exact(place) for place in places])
    elif order.dedup == "near":
        do("links", [copies.Links(place) for place in places])
        do("groups", [copies.Connect()])
        do("copies", [copies.Near(place) for place in places])

    if rule is not None:
        sized = choice.Documents(setting, pieces).sized
        rule = heldout.made_certain(rule, len(corpus.paths), sized)
        do("held-out", [choice.Choose(portion, rule) for portion in every])

    firsts = _firsts(setting, counts)
    tasks = [
        writing.Write(
            portion, tuple(firsts[p] for p in parts), tuple(counts[p] for p in parts), rule
        )
        for portion, parts in enumerate(setting.portions)
    ]
    do("rows", tasks)
    written, totals = _taken(pieces, tasks, folder)
    described = [one for task in descriptions for one in plan.outcome(pieces, task)]
    return build.Done(
        written,
        totals,
        rule,
        described[: len(corpus.paths)],
        described[len(corpus.paths) :],
    )


def _check(label: str, pieces: store.Store, root: str, tasks: Sequence[plan.Task]) -> None:
    """UserError unless every task of a round has left its outcome."""
    there = pieces.names()
    missing = [task.name for task in tasks if task.name not in there]
    if missing:
        raise UserError(
            f"the engine says that it is done, but of the {len(tasks)} tasks of the round {label!r} {len(missing)} "
            f"have left nothing in {root}, {missing[0]} the first; do all workers mount this folder under this path?"
        )


def _counted(
    setting: plan.Setting, pieces: store.Store, surveys: Sequence[survey.Survey]
) -> list[int]:
    """The documents of every part. UserError for an input without any that is no part of an output."""
    counts = [count for task in surveys for count in plan.outcome(pieces, task)]
    for parts in setting.parts_of.values():
        path = setting.path(setting.parts[parts[0]])
        if not documents.is_part(path) and not any(counts[part] for part in parts):
            raise documents.refused_empty(path)
    return counts


def _firsts(setting: plan.Setting, counts: Sequence[int]) -> list[int]:
    """For every part the number in its file of its first document."""
    found: list[int] = []
    for parts in setting.parts_of.values():
        own = [counts[part] for part in parts]
        found += [0, *itertools.accumulate(own)][:-1]
    return found


def _taken(
    pieces: store.Store, tasks: Sequence[writing.Write], folder: Path
) -> tuple[list[dict[str, Any]], dict[str, "collections.Counter[str]"]]:
    """Takes the shards to their place, under their names, and adds up what is said of them."""
    outcomes = [plan.outcome(pieces, task) for task in tasks]
    written = []
    totals = {split: collections.Counter[str]() for split in ("train", "valid")}
    for split, total in totals.items():
        for outcome in outcomes:
            total.update(outcome["counts"][split])
        found = [one for outcome in outcomes for one in outcome["shards"] if one["split"] == split]
        for number, shard in enumerate(found):
            name = shards.name(split, number, len(found))
            pieces.take(shard["name"], folder / name, shard["sha256"])
            written.append({**shard, "name": name})
    return written, totals
