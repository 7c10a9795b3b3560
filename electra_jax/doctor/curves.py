"""Curves of runs that learned: published ones and our own, for a run to be held beside.

curves.csv has a line a point, sources.csv a line a curve: what was trained, where the figures are from. They are
facts; sources.csv names the licence of what they were read from.
"""

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

POINTS, SOURCES = "curves.csv", "sources.csv"
ALIKE = 2.0  # times by which a run may differ in any of its sizes
FEWEST = 3  # sizes that have to be known


@dataclass(frozen=True)
class Point:
    """One evaluation; what was not published is None."""

    step: int
    tokens: float | None
    mlm_loss: float | None
    disc_auc: float | None
    loss: float | None
    sampled_accuracy: float | None


@dataclass(frozen=True)
class Curve:
    """A run of others: `sizes` are those known of row, batch, width and vocabulary; `unigram` in nats.

    `modern`: with rotary positions; `continued`: it began with trained weights.
    """

    name: str
    what: str
    source: str
    licence: str
    modern: bool
    sizes: dict[str, float]
    unigram: float | None
    continued: bool
    points: tuple[Point, ...]

    def distance(self, sizes: dict[str, float]) -> float | None:
        """How far a run of these sizes is from this one (0: the same); None where they are not alike."""
        shared = self.sizes.keys() & sizes.keys()
        apart = [abs(math.log2(self.sizes[name] / sizes[name])) for name in shared]
        if len(apart) < FEWEST or max(apart) > math.log2(ALIKE):
            return None
        return sum(apart)

    def at(self, tokens: float, metric: str) -> float | None:
        """The metric after so many tokens, between its points by a line; after the last, that of the last."""
        known = [
            (point.tokens, getattr(point, metric))
            for point in self.points
            if point.tokens is not None and getattr(point, metric) is not None
        ]
        if not known or tokens < known[0][0]:
            return None
        for (x, y), (x2, y2) in itertools.pairwise(known):
            if tokens <= x2:
                return float(y + (y2 - y) * (tokens - x) / max(1.0, x2 - x))
        return float(known[-1][1])


def shipped() -> tuple[Curve, ...]:
    """The curves of the package."""
    folder = Path(__file__).parent
    points: dict[str, list[Point]] = {}
    for row in _rows(folder / POINTS):
        millions = _number(row["tokens_m"])
        points.setdefault(row["curve"], []).append(
            Point(
                step=int(row["step"]),
                tokens=None if millions is None else millions * 1e6,
                mlm_loss=_number(row["mlm_loss"]),
                disc_auc=_number(row["disc_auc"]),
                loss=_number(row["loss"]),
                sampled_accuracy=_number(row["sampled_accuracy"]),
            )
        )
    return tuple(_curve(row, tuple(points[row["curve"]])) for row in _rows(folder / SOURCES))


def nearest(sizes: dict[str, float], modern: bool, continued: bool = False) -> Curve | None:
    """The curve of the run that is most like one of these sizes; None where none is like it."""
    near = [
        (distance, curve)
        for curve in shipped()
        if (curve.modern, curve.continued) == (modern, continued)
        and (distance := curve.distance(sizes)) is not None
    ]
    return min(near, key=lambda pair: pair[0])[1] if near else None


def _curve(row: dict[str, str], points: tuple[Point, ...]) -> Curve:
    known = {name: _number(row[name]) for name in ("row", "batch", "width", "vocabulary")}
    return Curve(
        name=row["curve"],
        what=row["what"],
        source=row["source"],
        licence=row["licence"],
        modern=row["family"] == "modern",
        sizes={name: value for name, value in known.items() if value is not None},
        unigram=_number(row["unigram"]),
        continued=row["continued"] == "yes",
        points=points,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if line[:1] != "#"))


def _number(text: str) -> float | None:
    return float(text) if text else None
