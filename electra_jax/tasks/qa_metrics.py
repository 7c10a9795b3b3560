"""Scores of answers as the official scripts of SQuAD 1.1, SQuAD 2.0, KorQuAD and CMRC2018 have them.

Every question counts in the denominator. A question without a prediction is wrong and counted in
"missing": so say the scripts of SQuAD 1.1, KorQuAD and CMRC2018; SQuAD 2.0's leaves it out of the
mean and then stops with a KeyError, so nothing official is lost by calling it wrong.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from electra_jax.spec import UserError

Golds = Mapping[str, Sequence[str]]  # question -> every reference answer; none: impossible
Texts = Mapping[str, str]  # question -> predicted answer; "": none

# The official script's default: with probabilities of no answer, never to overrule a prediction.
NULL_THRESHOLD = 1.0

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KOREAN_MARKS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))
_SENTENCE_END = re.compile(r"[.?!]\W")
# CMRC2018's list. Its "……" is two characters long and so never met; it is left out here.
_CHINESE_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def squad1(golds: Golds, predictions: Texts) -> dict[str, Any]:
    """SQuAD 1.1 (evaluate-v1.1.py), MRQA, TQuAD: exact_match and f1, the best over all references."""
    return _mean("exact_match", golds, predictions, _exact, _token_f1(strict=False))


def korquad(golds: Golds, predictions: Texts) -> dict[str, Any]:
    """KorQuAD 1.0 (evaluate-v1.0.py): exact_match, and f1 over characters."""
    return _mean("exact_match", golds, predictions, _korean_exact, _korean_f1)


def cmrc(golds: Golds, predictions: Texts) -> dict[str, Any]:
    """CMRC2018 and DRCD (cmrc2018_evaluate.py): exact_match, f1 over the longest common stretch of
    Chinese characters and other words, and their average.

    The script splits what stands between Chinese characters into sentences before words. Without
    NLTK's data for that, "differs" says for how many questions f1 may be another than the official.
    """
    words = _ChineseWords()

    def f1(gold: str, text: str) -> float:
        return _chinese_f1(words(gold), words(text))

    found = _mean("exact_match", golds, predictions, _chinese_exact, f1)
    found["average"] = (found["exact_match"] + found["f1"]) / 2
    doubtful = 0
    if not words.sentences:
        for key in golds.keys() & predictions.keys():
            doubtful += any(map(words.several_sentences, (*golds[key], predictions[key])))
    if doubtful:
        found["differs"] = (
            f"f1 may differ from the official one for {doubtful} of {len(golds)} questions: NLTK's "
            "data for splitting sentences are absent; python -m nltk.downloader punkt_tab"
        )
    return found


def squad2(
    golds: Golds,
    predictions: Texts,
    null_odds: Mapping[str, float] | None = None,
    threshold: float = NULL_THRESHOLD,
) -> dict[str, Any]:
    """SQuAD 2.0 (evaluate-v2.0.py): exact and f1, of all, of those with and those without an answer.

    `null_odds`: question -> how much speaks for no answer; above `threshold` a prediction is taken
    for "". With them come best_exact, best_f1 and the thresholds that give them. Predictions of ""
    stay so at every threshold, so for the best thresholds give the best text of every question.
    """
    # As the script does, references that normalise to nothing are no references.
    kept = {key: [gold for gold in said if _normal(gold)] for key, said in golds.items()}
    answerable = {key: bool(said) for key, said in golds.items()}
    exact, f1 = (
        {
            key: max(rule(gold, predictions[key]) for gold in said or [""])
            for key, said in kept.items()
            if key in predictions
        }
        for rule in (_exact, _token_f1(strict=True))
    )
    odds = dict.fromkeys(golds, 0.0) if null_odds is None else null_odds
    _check_odds(golds, odds)

    def after(scores: Mapping[str, float], key: str) -> float:
        if key not in scores:
            return 0.0
        return float(not answerable[key]) if odds[key] > threshold else scores[key]

    found: dict[str, Any] = {}
    groups = {
        "": list(golds),
        "HasAns_": [key for key in golds if answerable[key]],
        "NoAns_": [key for key in golds if not answerable[key]],
    }
    for prefix, keys in groups.items():
        if keys:
            found[f"{prefix}exact"] = 100 * sum(after(exact, key) for key in keys) / len(keys)
            found[f"{prefix}f1"] = 100 * sum(after(f1, key) for key in keys) / len(keys)
            found[f"{prefix}total"] = len(keys)
    if null_odds is not None:
        for name, scores in (("best_exact", exact), ("best_f1", f1)):
            found[name], found[f"{name}_thresh"] = _best(predictions, scores, odds, answerable)
    found["missing"] = len(golds) - len(exact)
    return found


def _mean(
    exact_name: str,
    golds: Golds,
    predictions: Texts,
    exact: Callable[[str, str], float],
    f1: Callable[[str, str], float],
) -> dict[str, Any]:
    sums = [0.0, 0.0]
    missing = 0
    for key, said in golds.items():
        if key not in predictions:
            missing += 1
            continue
        for place, rule in enumerate((exact, f1)):
            sums[place] += max((rule(gold, predictions[key]) for gold in said), default=0.0)
    total = len(golds)
    return {
        exact_name: 100 * sums[0] / total,
        "f1": 100 * sums[1] / total,
        "total": total,
        "missing": missing,
    }


def _best(
    predictions: Texts,
    scores: Mapping[str, float],
    odds: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> tuple[float, float]:
    """(percent, threshold): the best that one threshold on the odds can give, as the script finds it.

    Begins with "" everywhere and takes up the predictions in the order of their odds; questions of
    equal odds are taken one by one, in the order of the odds file.
    """
    now = best = float(sum(not there for there in answerable.values()))
    threshold = 0.0
    for key in sorted(odds, key=lambda key: odds[key]):
        if key not in scores:
            continue
        if answerable[key]:
            now += scores[key]
        elif predictions[key]:
            now -= 1
        if now > best:
            best, threshold = now, odds[key]
    return 100 * best / len(answerable), threshold


def _check_odds(golds: Golds, odds: Mapping[str, float]) -> None:
    missing = [key for key in golds if key not in odds]
    if missing:
        raise UserError(
            f"null odds: {len(missing)} of {len(golds)} questions have none, the first is "
            f"{missing[0]}"
        )


def _normal(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _exact(gold: str, text: str) -> float:
    return float(_normal(gold) == _normal(text))


def _token_f1(strict: bool) -> Callable[[str, str], float]:
    """F1 over words; `strict`: of two empty answers it is 1 (SQuAD 2.0), not 0 (1.1)."""

    def rule(gold: str, text: str) -> float:
        a, b = _normal(gold).split(), _normal(text).split()
        if strict and not (a and b):
            return float(a == b)
        return _overlap(a, b)

    return rule


def _overlap(gold: Sequence[str], text: Sequence[str]) -> float:
    """F1 of two bags."""
    same = sum((Counter(gold) & Counter(text)).values())
    return 2 * same / (len(gold) + len(text)) if same else 0.0


def _korean(text: str) -> list[str]:
    return text.translate(_KOREAN_MARKS).lower().translate(_NO_PUNCTUATION).split()


def _korean_exact(gold: str, text: str) -> float:
    return float(_korean(gold) == _korean(text))


def _korean_f1(gold: str, text: str) -> float:
    return _overlap("".join(_korean(gold)), "".join(_korean(text)))


def _chinese_exact(gold: str, text: str) -> float:
    a, b = (
        "".join(char for char in said.lower().strip() if char not in _CHINESE_MARKS)
        for said in (gold, text)
    )
    return float(a == b)


class _ChineseWords:
    """Text -> its Chinese characters, and the words of what stands between them.

    `sentences`: whether that is split into sentences first, as NLTK's data allow.
    """

    def __init__(self) -> None:
        try:
            from nltk.tokenize import NLTKWordTokenizer, word_tokenize
        except ImportError:
            raise UserError(
                "the score of CMRC2018 and DRCD needs nltk, whose words it counts: "
                "pip install 'electra-jax[finetune]'"
            ) from None
        self._words: Callable[[str], list[str]] = word_tokenize
        self.sentences = True
        try:
            word_tokenize("a")
        except LookupError:
            self._words = NLTKWordTokenizer().tokenize
            self.sentences = False

    def __call__(self, text: str) -> list[str]:
        found: list[str] = []
        for piece in self._pieces(text):
            found += [piece] if "\u4e00" <= piece <= "\u9fa5" else self._words(piece)
        return found

    def several_sentences(self, text: str) -> bool:
        """Whether a sentence might end before the end of a piece."""
        return any(_SENTENCE_END.search(piece.strip()) for piece in self._pieces(text))

    @staticmethod
    def _pieces(text: str) -> list[str]:
        kept = (char for char in text.lower().strip() if char not in _CHINESE_MARKS)
        return re.split(r"([\u4e00-\u9fa5])", "".join(kept))


def _chinese_f1(gold: Sequence[str], text: Sequence[str]) -> float:
    """F1 of the longest stretch that both have."""
    longest = 0
    row = [0] * (len(text) + 1)
    for word in gold:
        row = [0] + [row[at] + 1 if word == other else 0 for at, other in enumerate(text)]
        longest = max(longest, max(row))
    return 2 * longest / (len(gold) + len(text)) if longest else 0.0
