"""Few data, read often: the training loss falls where the held-out one rises."""

from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import MORE_TEXT, Speaking, of_batches, settled

APART = 0.5  # nats (or share of the loss) between held-out rows and batches
FAR_APART = 1.0  # so much is repetition, though the rows were read but once: copies of one text
RISEN = 0.1  # since the best evaluation
# Where there is no masked-LM loss, the loss, in shares of itself.
METRICS = ("mlm_loss", "loss")


class Repetition(Speaking):
    """Held-out loss beside that of the latest batches, and the passes over the rows."""

    name: ClassVar[str] = "repetition"

    def look(self, run: Run) -> Finding | None:
        """Nothing without held-out rows."""
        for metric in METRICS:
            valid = [x for x in history.having(run.history.valid, metric) if x["step"] > run.began]
            if valid:
                return self._judged(run, metric, valid)
        return None

    def _judged(self, run: Run, metric: str, valid: list[history.Line]) -> Finding | None:
        last = valid[-1]
        batches = of_batches(run, metric, last["step"])
        if batches is None:
            return None
        held_out, best = last[metric], min(line[metric] for line in valid)
        unit = 1.0 if metric == METRICS[0] else abs(best) or 1.0
        apart = (held_out - batches) / unit
        risen = (held_out - best) / unit
        epochs = run.epochs(last["step"])
        figures = {"epochs": epochs, "held_out": held_out, "best": best, "apart": apart}
        told = (
            f"held-out {metric} {held_out:.3f} ({best:.3f} at its best), of batches "
            f"{batches:.3f}, after {epochs:.1f} passes over the rows"
        )
        if not settled(run, last["step"]):
            return self.says(Verdict.EARLY, told, **figures)
        if apart > FAR_APART or (apart > APART and risen > RISEN):
            text = f"it learns its rows by heart: {told}"
            return self.says(Verdict.BAD, text, MORE_TEXT, **figures)
        return self.says(Verdict.OK, told, **figures)
