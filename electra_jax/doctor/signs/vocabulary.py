"""A vocabulary that does not fit the text: unknown tokens, or words that fall into letters."""

from typing import Any, ClassVar

from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.history import number
from electra_jax.doctor.run import Run
from electra_jax.doctor.signs.sign import Speaking

UNKNOWN, MANY_UNKNOWN = 0.01, 0.05  # shares of tokens, or of characters, that are [UNK]
SHORT = 1.6  # characters a token; 3 to 4.5 where a vocabulary fits a language with an alphabet
ALPHABETIC = 0.7  # share of tokens that are not of Chinese, Japanese or Korean
WHOLE = 500  # tokens of a vocabulary that is meant to have more than letters


class Vocabulary(Speaking):
    """What `prepare` counted in the training text."""

    name: ClassVar[str] = "vocabulary"

    def look(self, run: Run) -> Finding | None:
        """Nothing where the prepared folder is gone, or from a version that did not count."""
        counts = dict(run.counts or {})
        tokens, characters = number(counts, "tokens"), number(counts, "characters")
        if not tokens or not characters:
            return None
        unknown = max(
            (number(counts, "unknown_tokens") or 0) / tokens,
            (number(counts, "unknown_characters") or 0) / characters,
        )
        scripts = ("chinese_tokens", "kana_tokens", "hangul_tokens")
        other = sum(number(counts, name) or 0 for name in scripts) / tokens
        each = characters / tokens
        figures: dict[str, Any] = {"unknown": unknown, "characters_per_token": each}
        told = f"{unknown:.1%} unknown, {each:.2f} characters a token"
        change = (
            "a vocabulary of this language (electra-jax vocab), prepare with it, --config.data.path"
        )
        if unknown > MANY_UNKNOWN:
            text = f"it does not fit the text: {told}"
            return self.says(Verdict.BAD, text, change, **figures)
        large = int(run.data["vocab_size"]) >= WHOLE
        if large and each < SHORT and other < 1 - ALPHABETIC:
            text = f"words fall into letters: {told}"
            return self.says(Verdict.BAD, text, change, **figures)
        if unknown > UNKNOWN:
            return self.says(Verdict.NOTE, told, change, **figures)
        return self.says(Verdict.OK, told, **figures)
