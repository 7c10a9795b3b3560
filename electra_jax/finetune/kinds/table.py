"""The kinds by name. A new one is a file beside this and a line here; a user's own comes from their file."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from electra_jax.finetune.kinds.kind import Kind
from electra_jax.spec import unknown_name
from electra_jax.tasks.features import Features, Room
from electra_jax.tasks.task import Task
from electra_jax.text.tokenizer import Tokenizer

FILES = (
    "classify",
    "regress",
    "tag",
    "qa",
    "choice",
)
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (import_module(f"electra_jax.finetune.kinds.{file}").kind for file in FILES)
}
SHIPPED = tuple(KINDS)  # what no kind of a user's may be called


def get(name: str) -> Kind:
    """The kind of this name. UserError with the nearest for none."""
    if name not in KINDS:
        raise unknown_name("kind of task", name, KINDS)
    return KINDS[name]


def register(kind: Kind) -> None:
    """Makes a user's own kind known by its name, for this process."""
    KINDS[kind.name] = kind


def features(
    task: Task,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    max_len: int,
    labels: Sequence[str] = (),
    training: bool = False,
    **room: int,
) -> Features:
    """The features of a task's examples; see `Kind.features`. `room`: the rest of `Room`."""
    asked = Room(max_len=max_len, **room)
    return get(task.kind).features(task, examples, tokenizer, asked, labels, training)


def score(
    task: Task, references: Sequence[Any], predictions: Any, **options: Any
) -> dict[str, Any]:
    """The scores of predictions for labelled examples; see `Kind.score`."""
    return get(task.kind).score(task, references, predictions, **options)
