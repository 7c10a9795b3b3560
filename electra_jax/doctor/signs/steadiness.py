"""Steadiness: losses that jump or climb, steps that were skipped, gradients that grow."""

import statistics
from typing import Any, ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import SETTLED_STEPS, Speaking, lower_rate

WINDOW = 8  # lines of single batches that are taken together
SPIKE = 0.15  # share of the loss by which a line stands above those before it
DEVIATIONS = 6.0  # and so many of their usual distances from their median
CLIMBED = (
    0.15  # share of the best loss, and of all it had come down, that the loss is above its best
)
SKIPPED = 0.01  # share of the steps of late
GROWN = 10.0  # times


def _settled_lines(run: Run, name: str) -> list[history.Line]:
    """Lines of these data with the rate near its peak."""
    lines = history.having(run.history.train, name)
    return [
        x for x in lines if x["step"] > run.began and run.after_warmup(x["step"]) >= SETTLED_STEPS
    ]


def _medians(values: list[float]) -> list[float]:
    """Of every WINDOW values that follow each other."""
    ends = range(WINDOW, len(values) + 1)
    return [statistics.median(values[end - WINDOW : end]) for end in ends]


class Spikes(Speaking):
    """The loss of batches: single jumps, and a loss that does not come down again."""

    name: ClassVar[str] = "spikes"

    def look(self, run: Run) -> Finding | None:
        """Nothing before there are lines enough."""
        lines = _settled_lines(run, "loss")
        losses = history.series(lines, "loss")
        if len(losses) < 2 * WINDOW:
            return None
        medians = _medians(losses)
        best, now = min(medians), medians[-1]
        jumps = [
            line["step"]
            for i, line in enumerate(lines[WINDOW:], WINDOW)
            if _jumped(losses[i - WINDOW : i], losses[i])
        ]
        figures: dict[str, Any] = {"best": best, "now": now, "spikes": len(jumps)}
        fell = max(0.0, history.series(run.history.train, "loss")[0] - best)
        if now - best > CLIMBED * max(abs(best), fell):
            text = f"the training loss has climbed from {best:.4g} to {now:.4g}"
            change = f"{lower_rate(run)}; go on from a checkpoint before it climbed"
            return self.says(Verdict.BAD, text, change, **figures)
        if jumps:
            where = ", ".join(f"{step:,}" for step in jumps[-3:])
            text = f"{len(jumps)} of {len(losses)} lines stand out, the last at step {where}"
            return self.says(Verdict.NOTE, text, lower_rate(run), **figures)
        return self.says(Verdict.OK, f"training loss {now:.4g}, {best:.4g} at its best", **figures)


def _jumped(before: list[float], value: float) -> bool:
    middle = statistics.median(before)
    distance = statistics.median(abs(x - middle) for x in before)
    return value - middle > max(SPIKE * abs(middle), DEVIATIONS * distance)


class Skipped(Speaking):
    """Steps whose loss or gradient was not finite: they changed nothing."""

    name: ClassVar[str] = "skipped"

    def look(self, run: Run) -> Finding | None:
        """The share of all steps and that of the last quarter."""
        lines = history.having(run.history.train, "skipped")
        if not lines:
            return None
        last = lines[-1]
        total, step = int(last["skipped"]), last["step"]
        before = next(line for line in lines if line["step"] >= 0.75 * step)
        late = (total - int(before["skipped"])) / max(1, step - before["step"])
        figures: dict[str, Any] = {"skipped": total, "steps": step, "share_of_late": late}
        change = (
            f"{lower_rate(run)}, or lengthen --config.optim.warmup, or --config.model.dtype=float32"
        )
        if late > SKIPPED:
            text = f"{total:,} steps were not finite, {late:.1%} of those of late"
            return self.says(Verdict.BAD, text, change, **figures)
        if total:
            text = f"{total:,} of {step:,} steps were not finite"
            return self.says(Verdict.NOTE, text, change, **figures)
        return self.says(Verdict.OK, f"none of {step:,} steps", **figures)


class Norms(Speaking):
    """The norm of the gradient before clipping."""

    name: ClassVar[str] = "gradient"

    def look(self, run: Run) -> Finding | None:
        """How much it has grown since it was smallest, and whether the loss fell all the same."""
        lines = [
            x for x in _settled_lines(run, "grad_norm") if history.number(x, "loss") is not None
        ]
        norms = _medians(history.series(lines, "grad_norm"))
        if len(norms) <= WINDOW:
            return None
        losses = _medians(history.series(lines, "loss"))
        least, now = min(norms), norms[-1]
        figures: dict[str, Any] = {"least": least, "now": now}
        told = f"norm {now:.3g}, {least:.3g} at its least"
        if now <= GROWN * least:
            return self.says(Verdict.OK, told, **figures)
        stuck = losses[-1] >= losses[norms.index(least)]
        change = f"{lower_rate(run)}, or clip more, --config.optim.clip_norm"
        verdict = Verdict.BAD if stuck else Verdict.NOTE
        return self.says(
            verdict, f"grown {now / max(least, 1e-30):.0f} times: {told}", change, **figures
        )
