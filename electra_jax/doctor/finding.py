"""What a sign says of a run: a verdict, the figures it rests on, and the setting to change."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """From good to bad; `EARLY`: the run is too short for this sign; `NOTE`: costs something, not the learning."""

    OK = "ok"
    EARLY = "early"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sign's. `learning`: whether an `OK` of it shows that something is learned."""

    sign: str
    verdict: Verdict
    text: str
    figures: dict[str, float | int | str | None] = field(default_factory=dict)
    change: str = ""
    learning: bool = False

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "sign": self.sign,
            "verdict": self.verdict.value,
            "text": self.text,
            "figures": self.figures,
            "change": self.change,
        }
