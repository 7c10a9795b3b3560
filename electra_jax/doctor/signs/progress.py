"""Any objective: whether its loss is lower than at the start."""

import statistics
from typing import Any, ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import MORE_TEXT, Speaking, lower_rate, settled

FALL = 0.01  # share of the first loss
RISE = 0.05  # share of the first loss, of a run that began with trained weights
HELD_OUT = "held-out"
WINDOW = 5  # lines of single batches that are taken together


class Progress(Speaking):
    """The loss of the first evaluation of these data and of the last; of batches where nothing is held out."""

    name: ClassVar[str] = "loss"

    def look(self, run: Run) -> Finding | None:
        """Lower than at first, or not; what to change differs where it is lower on training rows alone."""
        found = _held_out(run) or _of_batches(run)
        if found is None:
            return None
        split, step, first, last = found
        text = f"{split} loss {first:.4g} at first, {last:.4g} at step {step}"
        figures: dict[str, Any] = {"step": step, "first": first, "last": last}
        if not settled(run, step):
            return self.says(Verdict.EARLY, text, **figures)
        continued = run.imported or run.began > 0
        limit = first + RISE * abs(first) if continued else first - FALL * abs(first)
        if last > limit:
            seen = _of_batches(run)
            if split == HELD_OUT and seen is not None and seen[3] < seen[2]:
                said = f"on training rows alone ({seen[2]:.4g} to {seen[3]:.4g})"
                return self.says(Verdict.BAD, f"it falls {said}: {text}", MORE_TEXT, **figures)
            change = lower_rate(run)
            return self.says(Verdict.BAD, f"nothing is learned: {text}", change, **figures)
        return self.says(Verdict.OK, text, **figures)


def _held_out(run: Run) -> tuple[str, int, float, float] | None:
    lines = history.having(run.history.valid, "loss")
    lines = [line for line in lines if line["step"] >= run.began]
    if len(lines) < 2:
        return None
    return HELD_OUT, lines[-1]["step"], lines[0]["loss"], lines[-1]["loss"]


def _of_batches(run: Run) -> tuple[str, int, float, float] | None:
    lines = history.having(run.history.train, "loss")
    lines = [line for line in lines if line["step"] > run.began]
    if len(lines) < 2 * WINDOW:
        return None
    losses = history.series(lines, "loss")
    first, last = statistics.median(losses[:WINDOW]), statistics.median(losses[-WINDOW:])
    return "training", lines[-1]["step"], first, last
