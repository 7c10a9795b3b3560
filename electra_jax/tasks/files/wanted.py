"""What a task asks of a file, and the checks that every kind of file shares."""

import dataclasses
import json
import math
from collections.abc import Iterable

from electra_jax.spec import UserError, nearest

NOT_A_CLASS = ("", "-", "--", "-1", "None", "null")  # how files say that a row has no label


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a reader is to check and how it is to go on.

    `labelled`: the split must have labels (train and dev; a test file need not). `labels`: the
    classes, or None where the training data say them. `scores`: the range of a regression label,
    or None. `impossible`: questions without an answer are part of the task. `carry_on`: texts that
    are empty and answers that are not where the file says are passed over, not refused. `notes`
    collects what the user should hear of, `empty` the places of empty texts, `strange` the labels
    that the task does not know, with their places, of a split that need not have any.
    """

    labelled: bool = True
    labels: tuple[str, ...] | None = None
    regress: bool = False
    scores: tuple[float, float] | None = None
    impossible: bool = True
    carry_on: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    empty: list[str] = dataclasses.field(default_factory=list)
    strange: list[str] = dataclasses.field(default_factory=list)

    def text(self, value: object, where: str, column: str) -> str:
        """A text that is not empty, as it stands; null is one. Raises UserError for anything else."""
        if value is None:
            value = ""
        if not isinstance(value, str):
            if isinstance(value, dict):
                raise UserError(
                    f"{where}: {column!r} is an object; name the path of the text in it, as in a.b"
                )
            raise UserError(f"{where}: {column!r} is a {type(value).__name__}; expected a text")
        if value.strip():
            return value
        if not self.carry_on:
            raise UserError(
                f"{where}: the text {column!r} is empty. Mend the file, or keep such with --config.data.carry_on=true"
            )
        self.empty.append(where)
        return value

    def label(self, where: str, said: str) -> str | float:
        """The label that `said` means. Raises UserError, beginning with `where`, for none."""
        if self.regress:
            return self._score(where, said)
        if not said:
            raise UserError(f"{where}: the label is empty")
        if self.labels is not None and said not in self.labels:
            raise unknown_label(where, said, self.labels)
        return said

    def gold(self, where: str, said: str) -> str | float | None:
        """The label of a row; None where the split need not have one and `said` is none of the task's.

        "-1", "None" and their kin are labels where the task's classes or range have them.
        """
        if self.labelled or (self.labels is not None and said in self.labels):
            return self.label(where, said)
        if said in NOT_A_CLASS and not (self.regress and said == "-1"):
            return None
        try:
            return self.label(where, said)
        except UserError:
            if said not in NOT_A_CLASS:
                self.strange.append(f"{where}: {said!r}")
            return None

    def tell_strange(self, path: str) -> None:
        """Notes the labels of a file that were none of the task's."""
        if self.strange:
            self.notes.append(
                f"{path}: {len(self.strange)} labels are none of the task's and taken as absent, the "
                f"first: {self.strange[0]}"
            )

    def _score(self, where: str, said: str) -> float:
        if not said:
            raise UserError(f"{where}: the label is empty")
        try:
            value = float(said)
        except ValueError:
            raise UserError(f"{where}: label {shown(said)} is not a number") from None
        if not math.isfinite(value):
            raise UserError(f"{where}: label {shown(said)} is not finite")
        if self.scores is not None and not self.scores[0] <= value <= self.scores[1]:
            low, high = self.scores
            raise UserError(
                f"{where}: label {said} is outside the task's range, {low:g} to {high:g}"
            )
        return value


def written(where: str, value: object) -> str:
    """A label of a file as text, "" for none (a table's NaN is). Raises UserError for several labels of one example."""
    if isinstance(value, (list, tuple, dict)):
        raise UserError(
            f"{where}: the label is {json.dumps(value, ensure_ascii=False, default=str)[:60]}; an "
            "example has one class (several at once, multi-label, cannot be learned). Where it is "
            "inside an object, name its path: --label labels.label"
        )
    none = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if none else str(value).strip()


def unknown_label(where: str, said: str, labels: Iterable[str]) -> UserError:
    """The error for a label that is no class of the task, with the nearest that is."""
    labels = list(labels)
    guess = nearest(said, labels)
    hint = f" Did you mean {guess!r}?" if guess else ""
    known = ", ".join(label if len(label) < 60 else f"{label[:57]}..." for label in labels[:20])
    more = ", ..." if len(labels) > 20 else ""
    return UserError(f"{where}: unknown label {shown(said)}.{hint} Labels: {known}{more}")


def shown(said: str) -> str:
    """A label in a message: its beginning, if it is long (a text where a label was asked for)."""
    return repr(said if len(said) < 60 else f"{said[:57]}...")
