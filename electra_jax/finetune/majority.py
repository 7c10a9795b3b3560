"""What always giving one answer reaches: the figure that a score has to beat before it means anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electra_jax.finetune.network import IGNORED
from electra_jax.finetune.plan import Plan, TaskData
from electra_jax.tasks import metrics, tags
from electra_jax.tasks.task import Task

NAME = "majority"  # the key of these scores in a workdir's files


def answer(data: TaskData) -> Any:
    """The one answer, of the training examples: the class or choice most have, or the mean score.

    Of tagging it is "O", or the most frequent tag where there is no "O"; of questions "", no answer.
    """
    if data.task.kind == "qa":
        return ""
    if data.task.kind == "tag":
        if tags.OUTSIDE in data.labels:
            return tags.OUTSIDE
        numbers = data.train.labels["tags"]
        return data.labels[np.bincount(numbers[numbers != IGNORED]).argmax()]
    said = data.train.labels["label"]
    if data.task.kind == "regress":
        low, high = data.task.score_range or (0.0, 1.0)
        return low + (high - low) * float(np.mean(said, dtype=np.float64))
    best = int(np.bincount(said[said >= 0]).argmax())
    return best if data.task.kind == "choice" else data.labels[best]


def scores(task: Task, said: Any, examples: Sequence[Any]) -> dict[str, float]:
    """The task's metrics of giving the answer `said` to every one of the labelled examples."""
    same: Any = [said] * len(examples)
    if task.kind == "qa":
        same = {example.id: said for example in examples}
    elif task.kind == "tag":
        same = [[said] * len(example.words) for example in examples]
    found = metrics.score(task, examples, same)
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
    if task.kind == "qa":
        return "no answer"
    if task.kind == "tag" and said == tags.OUTSIDE:
        return "no entity"
    if task.kind == "regress":
        return f"{said:.4g}, the mean"
    return repr(task.names.get(said, said)) if task.kind != "choice" else f"choice {said}"
