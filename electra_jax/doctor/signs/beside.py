"""Beside a run that learned: what the most similar of the shipped curves had reached by then."""

from typing import ClassVar

from electra_jax.doctor import curves, history
from electra_jax.doctor.curves import Curve
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import MODERN, Speaking, millions, settled

AHEAD = 0.3  # nats below the loss of counting tokens: a curve that has less cannot say that a run is behind it
ABOVE = 0.3  # nats above that loss: behind, wherever the curve is
BEHIND = 0.5  # share of that which this run has reached
LARGER = 1.1  # times the loss of the curve, where only that is known
_CHANGE = (
    "nothing, if text and settings differ for a reason; else compare options with the recipe of the curve "
    "(--config.optim.peak_lr, --config.optim.warmup, --config.train.batch)"
)


class Beside(Speaking):
    """The gap between the loss of counting tokens and the model's, which texts and vocabularies change least."""

    name: ClassVar[str] = "reference"

    def look(self, run: Run) -> Finding | None:
        """Nothing where no run like this one is known."""
        sizes = {
            "row": run.length,
            "batch": run.stretches[-1].batch,
            "width": run.option("model.width", 0),
            "vocabulary": run.data["vocab_size"],
        }
        sizes = {name: float(value) for name, value in sizes.items() if value}
        curve = curves.nearest(sizes, run.option("model.family") == MODERN, run.imported)
        if curve is None:
            return None
        return self._by_gap(run, curve) or self._by_loss(run, curve)

    def _by_gap(self, run: Run, curve: Curve) -> Finding | None:
        lines = history.having(run.history.valid, "mlm_loss", "mlm_loss_unigram")
        if not lines or curve.unigram is None:
            return None
        last = lines[-1]
        tokens = run.tokens(last["step"])
        there = curve.at(tokens, "mlm_loss")
        if there is None:
            return None
        mine, theirs = last["mlm_loss_unigram"] - last["mlm_loss"], curve.unigram - there
        auc, own_auc = curve.at(tokens, "disc_auc"), history.number(last, "disc_auc")
        figures = {"curve": curve.name, "tokens": tokens, "below_unigram": mine, "theirs": theirs}
        text = f"after {millions(tokens)} {_beside(mine)} counting tokens; {curve.what}: {_beside(theirs)}"
        if auc is not None and own_auc is not None:
            text += f" (AUC {own_auc:.3f}; {auc:.3f})"
        if not settled(run, last["step"]):
            return self.says(Verdict.EARLY, text, **figures)
        if mine < -ABOVE or (theirs > AHEAD and mine < BEHIND * theirs):
            return self.says(Verdict.NOTE, f"behind: {text}", _CHANGE, **figures)
        if theirs <= AHEAD and mine < theirs:
            return self.says(Verdict.EARLY, f"too early to compare: {text}", **figures)
        return self.says(Verdict.OK, text, **figures)

    def _by_loss(self, run: Run, curve: Curve) -> Finding | None:
        lines = history.having(run.history.valid, "loss") or history.having(
            run.history.train, "loss"
        )
        if not lines:
            return None
        step, loss = lines[-1]["step"], lines[-1]["loss"]
        there = curve.at(run.tokens(step), "loss")
        if there is None:
            return None
        text = f"after {millions(run.tokens(step))} loss {loss:.4g}; {curve.what}: {there:.4g}"
        figures = {"curve": curve.name, "loss": loss, "theirs": there}
        if not settled(run, step):
            return self.says(Verdict.EARLY, text, **figures)
        if loss > LARGER * there:
            return self.says(Verdict.NOTE, f"behind: {text}", _CHANGE, **figures)
        return self.says(Verdict.OK, text, **figures)


def _beside(below: float) -> str:
    return f"{abs(below):.2f} nats {'below' if below >= 0 else 'above'}"
