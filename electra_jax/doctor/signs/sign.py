"""What a sign is: looked for in a run, it gives a finding, or None where the run does not log what it needs."""

import statistics
from typing import Any, ClassVar, Protocol

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run

# A run is judged after so many steps at full rate, and so many tokens: by then `quickstart` has fitted the counts of
# tokens and goes beyond them (curves.csv), and a large batch has had more than a few steps.
SETTLED_STEPS = 300
SETTLED_TOKENS = 3e5
LATEST = 10  # lines of single batches that are taken together
MODERN = "modern"  # of model.family: rotary positions
MORE_TEXT = (
    "more text, or without copies (prepare --dedup), as --config.data.path; fewer steps, "
    "--config.train.steps; --config.model.dropout=0.1"
)


class Sign(Protocol):
    """One thing that may be wrong with a run."""

    name: ClassVar[str]

    def look(self, run: Run) -> Finding | None:
        """The finding, None where the log does not have what this sign rests on."""
        ...


class Speaking:
    """What signs are made of: findings under their own name."""

    name: ClassVar[str]

    def says(self, verdict: Verdict, text: str, change: str = "", **figures: Any) -> Finding:
        """A finding; figures that are None were not logged."""
        return Finding(
            sign=self.name, verdict=verdict, text=text, change=change, figures=_short(figures)
        )


def settled(run: Run, step: int, tokens: float = SETTLED_TOKENS) -> bool:
    """Whether so much is done by this step that a metric of it can be judged."""
    return run.after_warmup(step) >= SETTLED_STEPS and run.tokens(step) >= tokens


def of_batches(run: Run, metric: str, step: int) -> float | None:
    """The mean of a metric over the latest training batches up to this step; None where they do not have it."""
    lines = [x for x in run.history.train if run.began < x["step"] <= step]
    values = history.series(lines, metric)[-LATEST:]
    return statistics.fmean(values) if values else None


def lower_rate(run: Run) -> str:
    """The advice of a smaller learning rate."""
    peak = float(run.option("optim.peak_lr"))
    return f"lower the learning rate: --config.optim.peak_lr={peak / 10:.3g} (it is {peak:.3g})"


def millions(tokens: float) -> str:
    """Tokens as people read them."""
    return f"{tokens / 1e6:,.2f} million tokens"


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}
