"""What text rules do to the letters of a corpus, counted, with examples to look at."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import tokenizers

from electra_jax.text import rules

# Shares of all letters up to which the original BERT's stripping of marks is decoration: about 1 in
# 1,000 letters of English has a mark, 15 of German, 40 of French. Marks of other scripts than
# Latin, Greek and Cyrillic are never decoration.
_DECORATION, _OTHER_SCRIPTS = 0.005, 0.001
_EXAMPLES = 3
_TURKISH = {("I", "\u0131"), ("\u0130", "i")}  # lower case in Turkish and Azerbaijani
_DOTLESS = 0.005  # share of the letters above which a text is taken as Turkish or Azerbaijani


class Effect(NamedTuple):
    """How many letters there are, and by kind of change how often each letter was changed to what."""

    letters: int
    changes: dict[str, dict[tuple[str, str], int]]

    def said(self, kind: str) -> str:
        """'1,234 (5.6%; A -> a, B -> b, ...)'."""
        found = self.changes.get(kind, {})
        often = sorted(found, key=lambda change: (-found[change], change))[:_EXAMPLES]
        shown = ", ".join(
            f"{_shown(before)} -> {_changed(before, after)}" for before, after in often
        )
        total = sum(found.values())
        return f"{total:,} ({_percent(total / max(1, self.letters))}; {shown})"


def of(counts: Mapping[str, int], normalize: Callable[[str], str]) -> Effect:
    """The effect of rules on letters that occur so often; `normalize` applies them to one character.

    The kinds: "case"; "marks", where a mark vanishes from a letter or is one that vanishes;
    "form", all else, as letters of double width.
    """
    letters, changes = 0, dict[str, dict[tuple[str, str], int]]()
    for character, count in counts.items():
        if unicodedata.category(character)[0] not in "LM":
            continue
        letters += count
        after = "".join(normalize(character).split())  # BERT's puts blanks around ideographs
        if after != character:
            changes.setdefault(_kind(character, after), {})[character, after] = count
    return Effect(letters, changes)


def is_english_like(counts: Mapping[str, int]) -> bool:
    """Whether the original BERT's rule of accents hardly changes text of these characters."""
    bert = tokenizers.normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
    )
    effect = of(counts, bert.normalize_str)
    changed = [pair for kind in effect.changes.values() for pair in kind.items()]
    other = sum(count for (letter, _), count in changed if not rules.is_accented(letter))
    most = _DECORATION * effect.letters
    return sum(n for _, n in changed) <= most and other <= _OTHER_SCRIPTS * effect.letters


def lines(
    counts: Mapping[str, int], normalize: Callable[[str], str], accents: str
) -> Iterable[str]:
    """What to tell the user of the rules, of which `accents` is one of rules.ACCENTS."""
    effect = of(counts, normalize)
    verbs = {"case": "lower-case", "marks": "take the marks off", "form": "rewrite"}
    said = [f"{verb} {effect.said(kind)}" for kind, verb in verbs.items() if kind in effect.changes]
    dotless = counts.get("\u0131", 0)
    if dotless > _DOTLESS * effect.letters and normalize("I") == "i":
        yield (
            f"note: the text has {dotless:,} dotless i (\u0131), but I becomes i; for Turkish and "
            "Azerbaijani give --language tr or az"
        )
    yield (
        f"of {effect.letters:,} letters the rules {', '.join(said) or 'change none'}; "
        f"accents: {accents} (--accents keep, strip or bert)"
    )


def _kind(before: str, after: str) -> str:
    if after in (before.lower(), before.casefold()) or (before, after) in _TURKISH:
        return "case"
    marks = _marks(before) - _marks(after)
    if marks > 0:
        return "marks"
    return "form"


def _marks(text: str) -> int:
    return sum(unicodedata.category(c) == "Mn" for c in unicodedata.normalize("NFD", text))


def _changed(before: str, after: str) -> str:
    """What a letter became; one that only fell into its parts looks the same, so the parts are named."""
    apart = unicodedata.normalize("NFC", after) == before
    return " + ".join(map(_shown, after)) if apart else _shown(after)


def _percent(share: float) -> str:
    """Two digits: "0.0017%", "2.4%", "100%"."""
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"


def _shown(text: str) -> str:
    """Readable: marks alone on a circle, nothing as such."""
    if not text:
        return "nothing"
    return f"\u25cc{text}" if unicodedata.category(text[0])[0] == "M" else text
