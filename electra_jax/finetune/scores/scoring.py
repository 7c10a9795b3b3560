"""From what a head says to what it means: predictions, their scores, and the files they go to, by the task's kind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.kinds.kind import Data
from electra_jax.finetune.rows import Found, Split
from electra_jax.tasks.task import Task


@dataclass(frozen=True)
class Scored:
    """A task and its classes, without training data."""

    task: Task
    labels: tuple[str, ...]
    head: HeadSpec


def scores(data: Data, split: Split, said: Found) -> dict[str, Any]:
    """The task's metrics of a labelled split."""
    return kinds.get(data.task.kind).scores(data, split, said)


def write(data: Data, name: str, split: Split, said: Found, folder: Path) -> None:
    """Writes a split's predictions into a folder: the task's files, and its leaderboard's where it has one."""
    kinds.get(data.task.kind).write(data, name, split, said, folder)


def write_file(
    data: Data, split: Split, said: Found, path: str | Path, with_probabilities: bool = False
) -> None:
    """Writes one file of predictions, with the probabilities that its kind has where that is asked for."""
    kinds.get(data.task.kind).write_file(data, split, said, path, with_probabilities)
