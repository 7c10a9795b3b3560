"""What `prepare` keeps of counting tokens: the figures of brute force, for any folder that has rows to judge."""

import numpy as np
import pytest

from electra_jax.data import baselines, ngrams
from electra_jax.data.prepare import build
from electra_jax.data.source import open_prepared
from electra_jax.spec import UserError


@pytest.fixture(scope="module")
def prepared(corpus, vocab, tmp_path_factory):
    """The corpus, prepared."""
    folder = tmp_path_factory.mktemp("baselines") / "rows"
    build.prepare(corpus, vocab, 32, folder, valid_fraction=0.2, workers=1)
    return open_prepared(folder)


def test_the_first_rows_are_judged_as_by_a_loop(prepared):
    """Catches sums that are not those of the rows a run is evaluated on, or a token after the wrong neighbour."""
    s, valid = prepared.special, prepared.source("valid")
    special = (s.pad, s.cls, s.sep, s.mask)
    model = ngrams.fit(prepared.source("train"), prepared.vocab_size, special, None)
    best, rows = model.best_after(), valid.rows(np.arange(7))
    losses, hits = {"unigram": [], "bigram": []}, {"unigram": 0, "bigram": 0}
    for ids, docs in zip(rows["ids"], rows["docs"], strict=True):
        for i, token in enumerate(ids):
            if docs[i] and token not in special:
                left, one = ids[i - 1 : i], ids[i : i + 1]
                losses["unigram"].append(-model.log_unigram(one)[0])
                losses["bigram"].append(-model.log_bigram(left, one)[0])
                hits["unigram"] += token == model.unigram_V.argmax()
                hits["bigram"] += token == best[left[0]]
    stored = baselines.Counted.load(prepared.path / baselines.NAME, prepared.vocab_size)
    found = stored.over(7)
    for name, (loss, accuracy) in found.items():
        assert loss == pytest.approx(np.mean(losses[name]), rel=1e-5)
        assert accuracy == pytest.approx(hits[name] / len(losses[name]))
    assert stored.over(10**9) == stored.over(len(valid)) != found
    present = model.unigram_V > 0
    np.testing.assert_allclose(
        np.exp(stored.log_unigram_V)[present], model.unigram_V[present], 1e-5
    )
    assert (stored.log_unigram_V[list(special)] == 0).all()


def test_a_folder_of_before_is_counted_when_asked(prepared, monkeypatch):
    """Catches an older folder that goes without, or one whose file is not read."""
    stored = baselines.of(prepared)
    monkeypatch.setattr(baselines, "NAME", "none.npz")
    counted = baselines.of(prepared)
    assert counted.over(5) == stored.over(5)
    monkeypatch.setattr(baselines, "MOST_PLACES", 32 * 40)
    assert baselines.of(prepared).counted_rows == 40  # bounded, whatever the corpus


def test_what_is_damaged_is_said(prepared, tmp_path):
    """Catches a traceback, or wrong figures, from a file cut short or of another vocabulary."""
    whole = (prepared.path / baselines.NAME).read_bytes()
    for number, content in enumerate((whole[:100], b"", b"no archive", whole)):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        size = prepared.vocab_size + (content == whole)
        with pytest.raises(UserError, match=r"\.npz is damaged .*remove this file"):
            baselines.Counted.load(path, size)


def test_nothing_to_judge_is_no_error(corpus, vocab, tmp_path):
    """Catches a preparation without held-out rows that fails at its very end."""
    build.prepare(corpus, vocab, 32, tmp_path / "rows", valid_fraction=0, workers=1)
    assert not (tmp_path / "rows" / baselines.NAME).exists()
    assert baselines.of(open_prepared(tmp_path / "rows")) is None
    one = tmp_path / "one.txt"
    one.write_text("he was the\n")
    (tmp_path / "two.txt").write_text("he was\n")
    held_out = [str(tmp_path / "two.txt")]
    build.prepare([str(one)], vocab, 32, tmp_path / "tiny", valid_inputs=held_out, workers=1)
    assert baselines.of(open_prepared(tmp_path / "tiny")) is None
