"""The discriminator: whether it tells replaced tokens from original ones, and better than counting does."""

from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import (
    Speaking,
    lower_rate,
    millions,
    of_batches,
    settled,
)

CHANCE = (
    0.53  # an AUC below this is that of a coin; healthy runs are at 0.57 after 0.3 million tokens
)
SEEN = 0.6  # and above this, on training rows, it is no coin there
JUDGED = 5e5  # tokens
BESIDE = 0.02  # by how much counting may be better before it is worth a word


class Discriminator(Speaking):
    """AUC on held-out rows."""

    name: ClassVar[str] = "discriminator"

    def look(self, run: Run) -> Finding | None:
        """Nothing where the objective has no such metric."""
        lines = history.having(run.history.valid, "disc_auc")
        if not lines:
            return None
        last = lines[-1]
        step, auc = last["step"], last["disc_auc"]
        unigram = history.number(last, "disc_auc_unigram")
        figures = {"step": step, "disc_auc": auc, "disc_auc_unigram": unigram}
        told = f"held-out AUC {auc:.3f}"
        if unigram is not None:
            told += f", counting tokens {unigram:.3f}"
        told += f", at {millions(run.tokens(step))}"
        if not settled(run, step, JUDGED):
            return self.says(Verdict.EARLY, told, **figures)
        batches = of_batches(run, "disc_auc", step)
        if auc < CHANCE and batches is not None and batches > SEEN:
            text = f"it knows its training rows alone (AUC {batches:.3f}; see repetition): {told}"
            return self.says(Verdict.NOTE, text, **figures)
        if auc < CHANCE:
            text = f"it knows nothing of what was replaced: {told}"
            return self.says(Verdict.BAD, text, _change(run), **figures)
        if unigram is not None and auc < unigram - BESIDE:
            text = f"worse than counting tokens: {told}"
            return self.says(Verdict.NOTE, text, _change(run), **figures)
        return self.says(Verdict.OK, told, **figures)


def _change(run: Run) -> str:
    ways = [lower_rate(run), "more weight, --config.objective.discriminator_weight"]
    if float(run.option("model.generator_size", 0) or 0) >= 1:
        ways.append("a generator smaller than it is, --config.model.generator_size=0.25")
    if str(run.option("objective.name")).endswith(".py"):
        ways.insert(0, "check the labels of your objective (--config.objective.name)")
    return "; or ".join(ways)
