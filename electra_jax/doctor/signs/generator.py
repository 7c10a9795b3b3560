"""The generator: too strong (nothing is replaced), too weak (counting finds what is), or always the same."""

from typing import ClassVar

from electra_jax.doctor import history
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import Speaking, lower_rate, settled

# Published runs end at 0.35 to 0.54 (curves.csv), of which 0.15 may be tokens that masking shows.
STRONG, VERY_STRONG = 0.65, 0.8
WEAK = 0.75  # AUC of a low unigram probability; an untrained generator's is 0.85, that of a unigram model 0.55
WEAK_TOKENS = 1e6
NARROW = 0.3  # nats
NARROW_ACCURACY = 0.3
# Logged where the samples are noise: what counts as replaced is its share then, whatever was sampled.
CLOZE = "energy_noise"


class Generator(Speaking):
    """What share of the chosen tokens its samples hit, and how its replacements give themselves away."""

    name: ClassVar[str] = "generator"

    def look(self, run: Run) -> Finding | None:
        """Nothing where no generator makes replacements: a masked LM, or a cloze model, cannot be too good."""
        lines = history.having(run.history.valid, "sampled_accuracy", "replaced_fraction")
        if not lines or CLOZE in lines[-1]:
            return None
        last = lines[-1]
        hit, replaced = last["sampled_accuracy"], last["replaced_fraction"]
        entropy = history.number(last, "generator_entropy")
        rare = history.number(last, "disc_auc_unigram")
        figures = {
            "step": last["step"],
            "sampled_accuracy": hit,
            "replaced_fraction": replaced,
            "generator_entropy": entropy,
            "disc_auc_unigram": rare,
        }
        # Of all tokens, or of the chosen ones where the objective judges no others: the key alone does not tell.
        told = f"{hit:.1%} of its samples are the true token (replaced_fraction {replaced:.3f})"
        if not settled(run, last["step"]):
            return self.says(Verdict.EARLY, told, **figures)
        if hit >= STRONG:
            verdict = Verdict.BAD if hit >= VERY_STRONG else Verdict.NOTE
            text = f"too strong: {told}, so the discriminator has little to find"
            return self.says(verdict, text, _weaker(run), **figures)
        if entropy is not None and entropy < NARROW and hit < NARROW_ACCURACY:
            text = f"it fills in the same few tokens everywhere: entropy {entropy:.2f} nats, {told}"
            return self.says(Verdict.BAD, text, lower_rate(run), **figures)
        compared = history.number(last, "mlm_loss_unigram") is not None
        weak = rare is not None and rare >= WEAK and run.tokens(last["step"]) >= WEAK_TOKENS
        if compared and weak:
            text = (
                f"too weak: rare tokens give replacements away (AUC {rare:.2f} by counting alone)"
            )
            return self.says(Verdict.BAD, text, _stronger(run), **figures)
        return self.says(Verdict.OK, told, **figures)


def _weaker(run: Run) -> str:
    size = float(run.option("model.generator_size", 0) or 0)
    own = run.option("model.tying") == "all"
    ways = []
    if own:
        ways.append("give it an encoder of its own, --config.model.tying=embeddings")
    if own or size > 0.25:
        ways.append(f"a smaller one, --config.model.generator_size=0.25 (it is {size:.3g})")
    ways.append("mask more, --config.objective.mask_prob")
    return "; ".join(ways) + ". If the text repeats itself: prepare --dedup, or more text"


def _stronger(run: Run) -> str:
    size = float(run.option("model.generator_size", 0) or 0)
    larger = (
        f"a larger one, --config.model.generator_size={min(1.0, 2 * size):.3g} (it is {size:.3g}); "
    )
    weight = "more weight of its loss, --config.objective.generator_weight"
    return (larger if 0 < size < 1 else "") + weight
