"""What always giving one answer reaches: the figure that a score has to beat before it means anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.plan import Plan, TaskData
from electra_jax.tasks import metrics
from electra_jax.tasks.task import Task

NAME = "majority"  # the key of these scores in a workdir's files


def answer(data: TaskData) -> Any:
    """The one answer, of the training examples: the class, tag or choice most have, the mean score, no answer."""
    return kinds.get(data.task.kind).one_answer(data, data.train.labels)


def scores(task: Task, said: Any, examples: Sequence[Any]) -> dict[str, float]:
    """The task's metrics of giving the answer `said` to every one of the labelled examples."""
    kind = kinds.get(task.kind)
    found = kind.score(task, examples, kind.always(said, examples))
    return {name: value for name, value in found.items() if metrics.is_score(name, value)}


def measure(work: Plan) -> dict[str, Any]:
    """A command's tasks: {task: {"answer": ..., "scores": {split: {metric: value}}}}."""
    found = {}
    for data in work.data:
        said = answer(data)
        found[data.task.name] = {
            "answer": said,
            "scores": {
                name: scores(data.task, said, split.examples)
                for name, split in data.splits.items()
                if split.labelled
            },
        }
    return found


def main_score(work: Plan, found: Mapping[str, Any]) -> float:
    """What stands against a run's dev score: the main metric, with several tasks their mean."""
    values = [found[d.task.name]["scores"]["dev"][d.task.main_metric] for d in work.data]
    return float(np.mean(values))


def describe(task: Task, said: Any) -> str:
    """What the one answer is, for people."""
    return kinds.get(task.kind).describe(task, said)
