"""What numbers and stretches of time an option can mean, and how they are written."""

import math
import re
from dataclasses import dataclass

from electra_jax.spec import UserError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave the end itself out."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        first = f"{'above' if self.above else 'at least'} {_text(self.low)}"
        return f"{first} and {'below' if self.below else 'at most'} {_text(self.high)}"


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str, where: str) -> float:
    """The seconds of a stretch of time such as 24h, 90m, 2d or 1.5h; UserError for what is none or not above 0."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd])", text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise UserError(
            f"{where} {text!r} is no stretch of time; expected one such as 24h, 90m or 2d"
        )
    return seconds


def spoken_time(seconds: float) -> str:
    """Seconds for people: 45 seconds, 90 minutes, 30.5 hours, 121 days."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            number = seconds / size
            return f"{number:,.0f} {unit}s" if number >= 10 else f"{number:.1f} {unit}s"
    return f"{seconds:.0f} seconds" if seconds >= 2 else f"{seconds:.1g} seconds"


def _text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"
