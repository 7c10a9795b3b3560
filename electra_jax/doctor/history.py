"""The lines of metrics.jsonl, read on from where the last reading stopped; of a long run not all that it had."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError

NAME = "metrics.jsonl"
MOST = 4_000  # lines of `train` that are kept: of more, every second one of the older half goes

Line = dict[str, Any]


class History:
    """What a run has logged, by split, in the order of steps; a line that is torn or none of a run's is left out."""

    def __init__(self, folder: str | Path) -> None:
        self._path, self._offset, self._identity = Path(folder) / NAME, 0, 0
        self._lines: dict[str, list[Line]] = {}

    @property
    def train(self) -> list[Line]:
        """Lines of training batches."""
        return self._lines.get("train", [])

    @property
    def valid(self) -> list[Line]:
        """Lines of held-out evaluations."""
        return self._lines.get("valid", [])

    @property
    def last_step(self) -> int:
        """The last step of any line; 0 without lines."""
        return max((lines[-1]["step"] for lines in self._lines.values()), default=0)

    def read_on(self) -> None:
        """Takes what was written since the last reading. UserError for a file that cannot be read."""
        try:
            with open(self._path, "rb") as file:
                file.seek(0, 2)
                if file.tell() < self._offset:  # begun anew meanwhile
                    self._lines, self._offset = {}, 0
                file.seek(self._offset)
                for raw in file:
                    if not raw.endswith(b"\n"):
                        break  # it is being written
                    self._offset += len(raw)
                    self._add(raw)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror}") from None

    def _add(self, raw: bytes) -> None:
        try:
            line = json.loads(raw)
            step, split = line["step"], line["split"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if type(step) is not int or step < 0 or not isinstance(split, str):
            return
        lines = self._lines.setdefault(split, [])
        # Two starts at once could not have written it; a copy put together by hand could.
        if lines and step <= lines[-1]["step"]:
            return
        lines.append(line)
        if len(lines) > MOST:
            half = len(lines) // 2
            lines[:half] = lines[:half:2]


def number(line: Line | None, name: str) -> float | None:
    """The value of a metric; None where the line has none, or one that is no finite number."""
    value = None if line is None else line.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def having(lines: list[Line], *names: str) -> list[Line]:
    """The lines in which all these metrics are finite numbers."""
    return [line for line in lines if all(number(line, name) is not None for name in names)]


def series(lines: list[Line], name: str) -> list[float]:
    """The finite values of a metric, in the order of steps."""
    return list(_values(lines, name))


def _values(lines: list[Line], name: str) -> Iterator[float]:
    for line in lines:
        value = number(line, name)
        if value is not None:
            yield value
