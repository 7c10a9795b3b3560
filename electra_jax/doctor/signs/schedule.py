"""The learning rate: whether it has ended before the run."""

from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import Speaking

NOTHING = 1e-3  # share of the largest rate so far
IDLE = 0.05  # share of the run's steps that such a rate may last


class Rate(Speaking):
    """The rate of the last line beside the largest so far."""

    name: ClassVar[str] = "rate"

    def look(self, run: Run) -> Finding | None:
        """At work, ended with the run, or ended before it."""
        lines = history.having(run.history.train, "learning_rate")
        if not lines:
            return None
        rates = history.series(lines, "learning_rate")
        now, most = rates[-1], max(rates)
        figures = {"learning_rate": now, "largest": most, "step": lines[-1]["step"]}
        if now > NOTHING * most:
            return self.says(Verdict.OK, f"{now:.3g}, {most:.3g} at its largest", **figures)
        idle = next(line["step"] for line in reversed(lines) if _works(line, most)) if most else 0
        if run.finished:
            more = f"--config.train.steps={2 * run.steps} --allow-change train.steps"
            text = f"the schedule ended with step {run.steps:,}; to go on: {more}"
            return self.says(Verdict.OK, text, **figures)
        if run.step - idle > IDLE * run.steps:
            text = f"the learning rate ended near step {idle:,}, the run goes on to {run.steps:,}"
            change = "the schedule (--config.optim), or end the run here (--config.train.stop_at)"
            return self.says(Verdict.BAD, text, change, **figures)
        return self.says(Verdict.OK, f"{now:.3g}: the schedule is at its end", **figures)


def _works(line: history.Line, most: float) -> bool:
    return float(line["learning_rate"]) > NOTHING * most
