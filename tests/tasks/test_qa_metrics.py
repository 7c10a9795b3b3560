"""Scores of answers: hand-worked cases, a naive search for thresholds, the scripts' peculiarities."""

import random

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import qa_metrics


def test_squad1_by_hand():
    """Catches normalisation left out, or the first reference taken for the best."""
    golds = {"a": ["in 1895", "1895"], "b": ["the Red Cat!"], "c": ["x"], "d": ["y"]}
    said = qa_metrics.squad1(golds, {"a": "1895.", "b": "a red dog", "c": "x y"})
    # a: exact by the second reference. b: red of (red cat) and (red dog). c: 1 of 2. d: missing.
    assert said["exact_match"] == pytest.approx(25)
    assert said["f1"] == pytest.approx(100 * (1 + 0.5 + 2 / 3) / 4)
    assert (said["total"], said["missing"]) == (4, 1)


def test_squad2_by_hand():
    """Catches F1 of two empty answers called 0 (as 1.1 does), and groups mixed."""
    golds = {"a": ["cat sat"], "b": [], "c": [], "d": ["the", "a dog"]}
    said = qa_metrics.squad2(golds, {"a": "cat", "b": "", "c": "dog", "d": "dog"})
    assert said["exact"] == pytest.approx(50) and said["total"] == 4
    assert said["f1"] == pytest.approx(100 * (2 / 3 + 1 + 0 + 1) / 4)
    assert said["HasAns_exact"] == pytest.approx(50) and said["HasAns_total"] == 2
    assert said["HasAns_f1"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert said["NoAns_exact"] == said["NoAns_f1"] == 50
    assert "best_f1" not in said and said["missing"] == 0
    # A reference of articles alone is none; with no other, only "" is right.
    assert qa_metrics.squad2({"e": ["the"]}, {"e": ""})["exact"] == 100
    assert qa_metrics.squad2({"e": ["the", "dog"]}, {"e": ""})["exact"] == 0
    assert qa_metrics.squad2({"e": ["red cat", "dog"]}, {"e": "dog"})["exact"] == 100


def test_missing_predictions_are_wrong():
    """Catches a mean over what was predicted, which rewards leaving out the hard questions."""
    golds = {"a": ["x"], "b": ["y"], "c": []}
    said = qa_metrics.squad2(golds, {"a": "x"}, {"a": 0.0, "b": 0.0, "c": 9.0})
    assert said["exact"] == pytest.approx(100 / 3) and said["missing"] == 2


def test_thresholds_against_a_search():
    """Catches a best threshold that is not the best, or scored on the wrong denominator."""
    rng = random.Random(0)
    for _ in range(30):
        golds = {str(n): ["x y"] if rng.random() < 0.5 else [] for n in range(12)}
        texts = {key: rng.choice(["x y", "x", "z", ""]) for key in golds}
        odds = {key: rng.random() for key in golds}
        said = qa_metrics.squad2(golds, texts, odds)
        for kind in ("exact", "f1"):
            tried = [
                qa_metrics.squad2(golds, texts, odds, threshold)[kind]
                for threshold in (-1.0, *odds.values())
            ]
            assert said[f"best_{kind}"] == pytest.approx(max(tried))
            if said[f"best_{kind}_thresh"]:
                at = qa_metrics.squad2(golds, texts, odds, said[f"best_{kind}_thresh"])
                assert at[kind] == pytest.approx(said[f"best_{kind}"])


def test_threshold_overrules():
    """Catches odds that overrule at the threshold, which must be passed, or the wrong way round."""
    golds = {"a": ["x"], "b": []}
    texts = {"a": "x", "b": "z"}
    assert qa_metrics.squad2(golds, texts, {"a": 0.5, "b": 1.5})["exact"] == 100
    assert qa_metrics.squad2(golds, texts, {"a": 1.0, "b": 1.0})["exact"] == 50
    with pytest.raises(UserError, match=r"1 of 2 questions have none, the first is b"):
        qa_metrics.squad2(golds, texts, {"a": 0.5})


def test_korquad_by_hand():
    """Catches F1 over words, which Korean endings make meaningless, and marks that are kept."""
    said = qa_metrics.korquad(
        {"a": ["임수경"], "b": ["《서울》 대학교"]}, {"a": "임수경을", "b": "서울 대학교"}
    )
    assert said["exact_match"] == 50
    assert said["f1"] == pytest.approx(100 * (2 * 3 / 7 + 1) / 2)


def test_cmrc_by_hand():
    """Catches a bag of characters where the longest common stretch is meant, punctuation that counts."""
    golds = {"a": ["光荣和ω-force"], "b": ["北京大学"], "c": ["一九八九年", "1989年"], "d": ["我"]}
    texts = {"a": "光荣和ω-force。", "b": "大学北京", "c": "在1989年"}
    said = qa_metrics.cmrc(golds, texts)
    assert said["exact_match"] == 25
    # b: a stretch of 2 of 4 and 4. c: 2 (1989, 年) of 2 and 3. d: missing.
    assert said["f1"] == pytest.approx(100 * (1 + 0.5 + 0.8) / 4)
    assert said["average"] == pytest.approx((said["exact_match"] + said["f1"]) / 2)
    assert said["missing"] == 1


@pytest.mark.parametrize(("there", "f1"), [(True, 200 / 3), (False, 80)])
def test_cmrc_splits_sentences_as_the_script_does(monkeypatch, there, f1):
    """Catches words without sentences before them, and a result that does not say so."""
    nltk = pytest.importorskip("nltk.tokenize")
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    def with_sentences(text):
        if not there:
            raise LookupError("punkt_tab")
        sentences = PunktSentenceTokenizer().tokenize(text)  # of "C.L. Max" as with NLTK's data
        return [word for one in sentences for word in nltk.NLTKWordTokenizer().tokenize(one)]

    monkeypatch.setattr(nltk, "word_tokenize", with_sentences)
    one = qa_metrics.cmrc({"a": ["Max Nikias"]}, {"a": "C.L. Max Nikias"})
    assert one["f1"] == pytest.approx(f1)
    assert ("differs" in one) is not there
    assert there or "1 of 1 questions" in one["differs"]
    assert "differs" not in qa_metrics.cmrc({"c": ["我a.b。"]}, {"c": "我"})
