"""Minimal pairs of grammar (BLiMP; Warstadt et al., 2020): how often the good sentence has the higher score."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from electra_jax.scoring import score as scores
from electra_jax.scoring import texts
from electra_jax.scoring.model import Scorer
from electra_jax.scoring.texts import Text
from electra_jax.spec import UserError

SENTENCES = ("sentence_good", "sentence_bad")
PARADIGM, TERM, FIELD = "UID", "linguistics_term", "field"
NONE = "-"  # of a file that does not say


@dataclass(frozen=True)
class Pair:
    """A sentence, another that differs in what makes it wrong, and the phenomenon: field, term and paradigm."""

    good: Text
    bad: Text
    field: str
    term: str
    paradigm: str


@dataclass(frozen=True)
class Tally:
    """Pairs of a kind, those in which the good sentence has the higher score, and those with equal scores (wrong)."""

    pairs: int = 0
    correct: int = 0
    ties: int = 0

    def add(self, good: float, bad: float) -> "Tally":
        """With one more pair."""
        return Tally(self.pairs + 1, self.correct + (good > bad), self.ties + (good == bad))

    def values(self) -> dict[str, Any]:
        """As JSON; the accuracy of a coin is 0.5."""
        accuracy = self.correct / self.pairs
        return {
            "accuracy": accuracy,
            "correct": self.correct,
            "pairs": self.pairs,
            "ties": self.ties,
        }


def read(path: str) -> list[Pair]:
    """The pairs of a file of JSON lines with sentence_good, sentence_bad, and field, linguistics_term, UID if it has
    them; compressed or not. UserError for a line without the two sentences, and for a file without lines.
    """
    found = []
    for where, record in texts.records(path):
        for name in (*SENTENCES, FIELD, TERM, PARADIGM):
            there = name in record
            if (name in SENTENCES and not there) or (there and not isinstance(record[name], str)):
                what = f"is {record[name]!r:.40}" if there else "is missing"
                raise UserError(f"{where}: {name} {what}; expected a text")
        good, bad = (Text(f"{where}, {name}", record[name]) for name in SENTENCES)
        kind = [record.get(name, NONE) for name in (FIELD, TERM, PARADIGM)]
        found.append(Pair(good, bad, *kind))
    if not found:
        raise UserError(f"{path} has no pairs; expected JSON lines with {' and '.join(SENTENCES)}")
    return found


def judge(
    scorer: Scorer, pairs: Sequence[Pair], *, word_l2r: bool = False, windows: bool = False
) -> dict[str, Any]:
    """The tally of all pairs, and by field, term and paradigm; a function of model and pairs alone, without a seed.

    A sentence's score is the sum over its tokens, so the two of a pair should have about as many.
    """
    both = [text for pair in pairs for text in (pair.good, pair.bad)]
    encoded = texts.encode(both, scorer.tokenizer, scorer.room, windows)
    totals = [one.total for one in scores.score(scorer, encoded, word_l2r)]
    all_, by = (
        Tally(),
        {name: collections.defaultdict[str, Tally](Tally) for name in (FIELD, TERM, PARADIGM)},
    )
    for pair, good, bad in zip(pairs, totals[::2], totals[1::2], strict=True):
        all_ = all_.add(good, bad)
        for name, value in ((FIELD, pair.field), (TERM, pair.term), (PARADIGM, pair.paradigm)):
            by[name][value] = by[name][value].add(good, bad)
    return {
        "total": all_.values(),
        **{name: {key: t.values() for key, t in sorted(one.items())} for name, one in by.items()},
    }


def table(judged: dict[str, Any]) -> str:
    """Lines of text: the total, then every field, term and paradigm."""
    groups = [("all", {"total": judged["total"]})]
    groups += [
        (name, judged[name]) for name in (FIELD, TERM, PARADIGM) if set(judged[name]) != {NONE}
    ]
    width = max(len(key) for _, group in groups for key in group)
    lines = [f"{'':{width}}  accuracy  correct    pairs     ties   (chance: 50.0%)"]
    for name, group in groups:
        lines += [] if name == "all" else [f"by {name}"]
        for key, one in group.items():
            counts = f"{one['correct']:8,} {one['pairs']:8,} {one['ties']:8,}"
            lines.append(f"{key:{width}}  {one['accuracy']:8.1%} {counts}")
    return "\n".join(lines)
