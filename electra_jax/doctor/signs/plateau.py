"""The unigram plateau: a masked LM that has learned how often tokens occur, and nothing of their context."""

from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import (
    MODERN,
    Speaking,
    lower_rate,
    millions,
    of_batches,
    settled,
)

LEFT = 0.15  # nats below the unigram's loss: more than masks and rows differ by chance
ABOVE = 0.3  # nats above it: not even the counts of tokens are learned
FALLING = 0.1  # nats in the later half of the evaluations
ENDED = 1e6  # tokens after which a run that has ended on the plateau is one that did not learn
# Tokens by which reference runs had left it, twice over: (rows up to, old encoder, modern encoder), in tokens. Rows of
# 32: mini by 1.4 million, quickstart by 1. Longer rows under learned positions stay for ten million, under rotary ones
# less than 2.5 (the sketch among the curves).
DUE = ((64, 3e6, 3e6), (2**40, 12e6, 5e6))
# NVIDIA's batches of 67,584 rows leave it after 700 steps, at tokens that mean nothing to small batches.
DUE_STEPS = 2_000
# Muon's rate is too high for tables: of `mini`, a ratio of 1 stayed on the plateau, one of 0.1 left it.
TABLES = 0.3


class Plateau(Speaking):
    """Held-out masked-LM loss beside that of guessing by the counts of tokens."""

    name: ClassVar[str] = "plateau"

    def look(self, run: Run) -> Finding | None:
        """Left, not yet late, late, or above what counting reaches."""
        lines = history.having(run.history.valid, "mlm_loss_unigram")
        if not lines or "mlm_loss" not in lines[-1]:
            return None
        last = lines[-1]
        step, model = last["step"], history.number(last, "mlm_loss")
        unigram = history.number(last, "mlm_loss_unigram") or 0.0
        tokens = run.tokens(step)
        figures = {"step": step, "tokens": tokens, "mlm_loss": model, "mlm_loss_unigram": unigram}
        if model is None:
            text = f"the held-out mlm_loss of step {step} is not finite"
            return self.says(Verdict.BAD, text, lower_rate(run), **figures)
        beside = (
            f"held-out mlm_loss {model:.3f}, counting tokens {unigram:.3f}, at {millions(tokens)}"
        )
        if unigram - model >= LEFT:
            return self.says(Verdict.OK, f"left: {beside}", **figures)
        batches = of_batches(run, "mlm_loss", step)
        if batches is not None and unigram - batches >= LEFT:
            text = f"left on its training rows alone ({batches:.3f}; see repetition): {beside}"
            return self.says(Verdict.NOTE, text, **figures)
        if settled(run, step) and model - unigram > ABOVE and (run.finished or not _falls(lines)):
            text = f"not even the counts of tokens are learned: {beside}"
            return self.says(Verdict.BAD, text, lower_rate(run), **figures)
        due = _due(run)
        late = tokens >= due and run.after_warmup(step) >= DUE_STEPS
        over = run.finished and tokens >= ENDED
        if late or over:
            said = "the run has ended on it" if over else f"others left it by {millions(due / 2)}"
            return self.says(Verdict.BAD, f"{said}: {beside}", _way_out(run), due=due, **figures)
        text = f"on it, not late before {millions(due)}: {beside}"
        return self.says(Verdict.EARLY, text, due=due, **figures)


def _falls(lines: list[history.Line]) -> bool:
    """Whether the loss has come down since half of the evaluations, the untrained model left out."""
    losses = history.series([line for line in lines if line["step"]], "mlm_loss")
    half = len(losses) // 2
    return half == 0 or losses[half - 1] - losses[-1] > FALLING


def _due(run: Run) -> float:
    modern = run.option("model.family") == MODERN
    return next(new if modern else old for most, old, new in DUE if run.length <= most)


def _way_out(run: Run) -> str:
    """What the reference runs left it by, but for what this run has."""
    ways = []
    if run.length > DUE[0][0]:
        ways.append("begin with short rows (prepare --seq-len 32, as the recipe mini does)")
    if run.option("model.family") != MODERN:
        ways.append("rotary positions, --config.model.family=modern")
    if run.option("optim.name") != "muon":
        ways.append("--config.optim.name=muon")
    elif float(run.option("optim.adam_ratio", 0) or 0) > TABLES:
        ways.append("a lower rate of the tables, --config.optim.adam_ratio=0.1")
    if run.finished or not ways:
        ways.append("more steps, --config.train.steps")
    return "; or ".join(ways)
