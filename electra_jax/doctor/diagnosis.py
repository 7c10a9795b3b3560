"""All signs of a run, and what they come to in one line."""

from dataclasses import dataclass
from typing import Any

from electra_jax.doctor import sketch
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.beside import Beside
from electra_jax.doctor.signs.discriminator import Discriminator
from electra_jax.doctor.signs.generator import Generator
from electra_jax.doctor.signs.plateau import Plateau
from electra_jax.doctor.signs.progress import Progress
from electra_jax.doctor.signs.repetition import Repetition
from electra_jax.doctor.signs.schedule import Rate
from electra_jax.doctor.signs.sign import Sign
from electra_jax.doctor.signs.steadiness import Norms, Skipped, Spikes
from electra_jax.doctor.signs.vocabulary import Vocabulary
from electra_jax.doctor.signs.waits import Waits

SIGNS: tuple[Sign, ...] = (
    Plateau(),
    Progress(),
    Discriminator(),
    Generator(),
    Spikes(),
    Skipped(),
    Norms(),
    Rate(),
    Repetition(),
    Vocabulary(),
    Waits(),
    Beside(),
)
# Of these an early one says that it is too early to say; the others are told when they have something.
DECIDING = (Plateau.name, Progress.name, Discriminator.name)


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, in the order of SIGNS."""

    run: Run
    findings: tuple[Finding, ...]

    @property
    def bad(self) -> tuple[Finding, ...]:
        """What keeps it from learning."""
        return tuple(one for one in self.findings if one.verdict is Verdict.BAD)

    @property
    def summary(self) -> str:
        """`learning`, `too early to say`, or `not learning: ` and the signs."""
        if self.bad:
            return f"not learning: {', '.join(one.sign for one in self.bad)}"
        deciding = [one for one in self.findings if one.sign in DECIDING]
        if not deciding or any(one.verdict is Verdict.EARLY for one in deciding):
            return "too early to say"
        return "learning"

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "summary": self.summary,
            "step": self.run.step,
            "steps": self.run.steps,
            "tokens": self.run.tokens(self.run.step),
            "findings": [one.as_json() for one in self.findings],
        }

    def as_text(self, name: str) -> str:
        """Lines for a person: curves, a sign a line, below it the setting to change, the summary last."""
        run = self.run
        lines = [
            f"{name}: step {run.step:,} of {run.steps:,}, {run.tokens(run.step) / 1e6:,.2f} million tokens"
        ]
        lines += sketch.curves(run.history.valid)
        width = max((len(one.sign) for one in self.findings), default=0)
        for one in self.findings:
            lines.append(f"{one.verdict.value:5}  {one.sign:{width}}  {one.text}")
            if one.change:
                lines.append(f"{'':5}  {'':{width}}  -> {one.change}")
        return "\n".join([*lines, self.summary])


def diagnose(run: Run) -> Diagnosis:
    """Looks for every sign."""
    found = (sign.look(run) for sign in SIGNS)
    return Diagnosis(run, tuple(one for one in found if one is not None))
