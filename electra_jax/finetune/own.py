"""A user's own task: a Python file with a Task, and a Kind if they like, checked wherever the package calls it.

The file has `task`, a Task, and may have `kind`, a Kind whose name `task.kind` is. A workdir keeps a copy, which
predict, export and a later start use, whatever becomes of the file.
"""

import dataclasses
import functools
import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from electra_jax import userfile
from electra_jax.finetune import network
from electra_jax.finetune.forward import Filling
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.kinds.kind import Data, Kind
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.rows import Split
from electra_jax.spec import UserError
from electra_jax.tasks import custom
from electra_jax.tasks.features import Features
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.task import Layout, Task

FOLDER = "tasks"  # of a workdir: the copies
WHAT = "task file"
NAME = re.compile(
    r"[A-Za-z][\w-]*"
)  # of a task; a folder's record is held to it before it names a file
_MEMBERS = {"task": "a Task of electra_jax.tasks.task"}


def load(path: str | Path) -> Task:
    """The task of a user's file; its kind is known from now on. UserError in one line for a file that has no such."""
    module, what = userfile.load(path, WHAT, _MEMBERS), f"{WHAT} {path}"
    task, kind = module.task, getattr(module, "kind", None)
    if not isinstance(task, Task):
        raise userfile.wrong(what, "task", _MEMBERS["task"], userfile.described(task))
    if task.name in custom.MAKERS or not NAME.fullmatch(str(task.name)):
        raise userfile.wrong(
            what,
            "task.name",
            f"letters, digits, - and _, and none of {', '.join(custom.MAKERS)}",
            repr(task.name),
        )
    if kind is not None:
        if not isinstance(kind, Kind):
            expected = "an object of a subclass of electra_jax.finetune.kinds.kind.Kind"
            raise userfile.wrong(what, "kind", expected, userfile.described(kind))
        name = getattr(kind, "name", None)
        if not isinstance(name, str) or name in kinds.SHIPPED:
            taken = f"a name other than {', '.join(kinds.SHIPPED)}"
            raise userfile.wrong(what, "kind.name", taken, repr(name))
        kinds.register(cast(Kind, _Checked(kind, path)))
    if task.kind not in kinds.KINDS:
        raise userfile.wrong(what, "task.kind", f"one of {', '.join(kinds.KINDS)}", repr(task.kind))
    if type(task.layout).__module__ == module.__name__:
        task = dataclasses.replace(task, layout=cast(Layout, _Read(task.layout, path)))
    return task


class _Read:
    """A user's layout: what it raises and returns is checked."""

    def __init__(self, layout: Any, path: str | Path) -> None:
        self._layout, self._path = layout, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layout, name)

    def read(self, path: str, wanted: Wanted) -> Sequence[Any]:
        """The examples of a file."""
        what, member = f"{WHAT} {self._path}", f"{type(self._layout).__name__}.read"
        expected = "a list of examples, each with id, labelled and classes"
        with userfile.calling(self._path, what, member, expected):
            found = list(self._layout.read(path, wanted))
        for number, example in enumerate(found):
            lost = [n for n in ("id", "labelled", "classes") if not hasattr(example, n)]
            if lost:
                said = f"{type(example).__name__} without {', '.join(lost)} (example {number + 1})"
                raise userfile.wrong(what, member, expected, said)
        return found


class _Checked:
    """A user's kind: what its members raise, and what they return, is checked."""

    def __init__(self, kind: Kind, path: str | Path) -> None:
        self._kind, self._path, self.cls = kind, path, type(kind).__name__

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._kind, name)
        if not callable(value):
            return value
        member = f"{self.cls}.{name}"
        return functools.partial(self._call, value, name, member)

    def _call(
        self, method: Callable[..., Any], name: str, member: str, *given: Any, **more: Any
    ) -> Any:
        what = f"{WHAT} {self._path}"
        expected, fault = _EXPECTED.get(name, ("what Kind's says", _nothing))
        with userfile.calling(self._path, what, member, expected):
            found = method(*given, **more)
        if wrong := fault(found, given):
            raise userfile.wrong(what, member, expected, wrong)
        return found


def _nothing(found: Any, given: Sequence[Any]) -> str:
    return ""


def _features_fault(found: Any, given: Sequence[Any]) -> str:
    """What is wrong with features of (task, examples, ...); "" for nothing."""
    if not isinstance(found, Features):
        return userfile.described(found)
    rows, units = len(found.ids), len(found.lengths)
    sizes: dict[str, tuple[Any, int]] = {
        "types": (found.types, rows),
        "example": (found.example, units),
    }
    sizes |= {name: (x, units) for name, x in (*found.targets.items(), *found.inputs.items())}
    for name, (values, size) in sizes.items():
        if len(values) != size:
            return f"{len(values)} entries of {name} for {size}"
    if rows != units * found.group:
        return f"{rows} rows for {units} units of {found.group}"
    return next(
        (
            f"row {number + 1} of {len(row)} tokens with {len(types)} types"
            for number, (row, types) in enumerate(zip(found.ids, found.types, strict=True))
            if len(row) != len(types)
        ),
        "",
    )


def _list_fault(found: Any, given: Sequence[Any]) -> str:
    """What is wrong with predictions of (data, split, outputs)."""
    if isinstance(found, Mapping):
        return ""
    if not isinstance(found, list):
        return userfile.described(found)
    wanted = len(given[1].examples)
    return "" if len(found) == wanted else f"{len(found)} for {wanted} examples"


def _scores_fault(found: Any, given: Sequence[Any]) -> str:
    """What is wrong with scores."""
    return "" if isinstance(found, dict) else userfile.described(found)


def _count_fault(found: Any, given: Sequence[Any]) -> str:
    """What is wrong with a number of outputs."""
    return "" if type(found) is int and found > 0 else userfile.described(found)


# Member -> what it has to return, and what is wrong with what it did.
_EXPECTED: dict[str, tuple[str, Callable[[Any, Sequence[Any]], str]]] = {
    "features": ("Features with one entry of every target and input a unit", _features_fault),
    "outputs": ("a number above 0", _count_fault),
    "predictions": ("a list with one prediction an example", _list_fault),
    "scores": ("a dict metric -> number", _scores_fault),
    "score": ("a dict metric -> number", _scores_fault),
    "head": ("a flax module", _nothing),
}


def check(path: str | Path, spec: NetworkSpec, data: Data, split: Split) -> None:
    """Calls what a user's task needs with shapes and zeros. UserError for what is no head, no sum, no score.

    `split`: a few labelled examples, which stand for all.
    """
    batch = split.rows.batch(np.arange(len(split.rows)), int(split.rows.lengths.max()))
    shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in batch.items()}
    predicted = _check_learning(path, spec, data.task.name, shapes)
    filled = Filling(split.rows)
    zeros = {name: np.zeros(x.shape, x.dtype) for name, x in predicted.items()}
    filled.add(np.arange(len(split.rows)), zeros)
    what, kind = f"{WHAT} {path}", kinds.get(data.task.kind)
    try:
        kind.predictions(data, split, filled.arrays)
        found = kind.scores(data, split, filled.arrays)
    except UserError as error:
        if str(error).startswith(what):
            raise
        raise UserError(f"{what}: {error}") from error
    if not isinstance(found.get(data.task.main_metric), int | float):
        expected = f"one of the scores {', '.join(found)}"
        raise userfile.wrong(what, "task.main_metric", expected, repr(data.task.main_metric))


def _check_learning(path: str | Path, spec: NetworkSpec, task: str, shapes: Any) -> Any:
    """The shapes of a head's outputs in prediction, by name; UserError where head, loss or count are none."""
    head = spec.head(task)
    kind, what = kinds.get(head.kind), f"{WHAT} {path}"
    name = kind.cls if isinstance(kind, _Checked) else type(kind).__name__
    alone = dataclasses.replace(spec, heads=((task, head),))

    def outputs(training: bool) -> Any:
        def both(batch: Any) -> Any:
            params = network.init(alone, jax.random.key(0))
            return network.apply(alone, params, task, batch, training=training)

        return jax.eval_shape(both, shapes)

    expected = 'outputs by name, each with the batch in front, such as {"logits": [B, classes]}'
    with userfile.calling(path, what, f"{name}.head", expected):
        learned, predicted = outputs(True), outputs(False)
    rows = shapes["weight"].shape[0]
    for out in (learned, predicted):
        if not isinstance(out, dict) or any(x.shape[:1] != (rows,) for x in out.values()):
            raise userfile.wrong(what, f"{name}.head", expected, userfile.described(out))
    width = learned["logits"].shape[-1] if "logits" in learned else head.outputs
    if kind.has_classes and width != head.outputs:
        classes = f"logits with {head.outputs} outputs, as {name}.outputs says"
        raise userfile.wrong(what, f"{name}.head", classes, userfile.described(learned))
    for member, found in (
        ("loss", jax.eval_shape(functools.partial(kind.loss, head), learned, shapes)),
        ("count", jax.eval_shape(kind.count, shapes)),
    ):
        if getattr(found, "shape", None) != ():
            one = "the sum over the rows of the batch, float32[]"
            raise userfile.wrong(what, f"{name}.{member}", one, userfile.described(found))
    return predicted


def digests(given: Sequence[str]) -> list[str]:
    """SHA-256 of the files among the tasks that a command was given, in their order."""
    files = [Path(path) for path in given if userfile.is_file(path)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def keep(workdir: Path, given: Sequence[str], tasks: Sequence[str]) -> None:
    """Copies the files among the tasks that a command was given to its workdir; `tasks`: their names."""
    for path, name in zip(given, tasks, strict=True):
        if userfile.is_file(path):
            (workdir / FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(path, kept(workdir, name))


def kept(workdir: str | Path, name: str) -> Path:
    """Where a workdir keeps the file of a task of this name."""
    return Path(workdir) / FOLDER / f"{name}.py"


def register(workdir: str | Path, tasks: Sequence[str]) -> dict[str, Task]:
    """The users' own tasks among those of a workdir, by name; their kinds are known from now on."""
    files = {name: kept(workdir, name) for name in tasks if NAME.fullmatch(name)}
    return {name: load(path) for name, path in files.items() if path.is_file()}


def as_kept(workdir: str | Path, given: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks that a command was given, files among them as the workdir has them. Says so where one has changed."""
    found = []
    for path, name in zip(given, tasks, strict=True):
        copy = kept(workdir, name)
        if userfile.is_file(path) and copy.is_file():
            if Path(path).is_file() and Path(path).read_bytes() != copy.read_bytes():
                print(f"{path} has changed since; the run goes on with {copy}", file=sys.stderr)
            path = str(copy)
        found.append(path)
    return tuple(found)
