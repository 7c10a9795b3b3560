"""Spans, n-grams and a share that changes during a run, beside a plain version in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.objective import corrupt, units
from electra_jax.objective.corrupt import Budget, MaskOptions
from electra_jax.ops import noise as noise_ops
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
VOCAB, LENGTH, ROWS = 500, 96, 64
PLAIN = {"mask_prob": 0.15, "mask_split": (0.85, 0.15, 0.0), "whole_word": False}


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """[CLS] a [SEP] b [SEP] of words of one to several pieces, rows from empty to full."""
    draw = np.random.default_rng(0)
    lengths = np.concatenate([[0, 1, 3, 4], draw.integers(5, LENGTH + 1, ROWS - 5), [LENGTH]])
    docs = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    ids = draw.integers(5, VOCAB, docs.shape).astype(np.int32) * docs
    starts = (draw.random(docs.shape) < 0.6).astype(np.int32) * docs
    for row, begins, n in zip(ids, starts, lengths.tolist(), strict=True):
        for at in {0, n // 2, n - 1} if n else ():
            row[at] = SPECIAL.cls if at == 0 else SPECIAL.sep
            begins[at : at + 2] = 1
    starts *= docs
    return {"ids": ids, "docs": docs, "word_starts": starts, "rows": np.arange(ROWS)}


def plainly(
    row: dict[str, np.ndarray], draws: np.ndarray, scores: np.ndarray, shares: tuple, words: bool
) -> set[int]:
    """The positions of one row that are chosen, by loops."""
    n = int((row["docs"] > 0).sum())
    wanted = min(max(int(np.round(np.float32(0.15) * np.float32(n))), 1), int(0.155 * LENGTH))
    groups: list[list[int]] = []  # with the numbers of those that may not be chosen, too
    left = 0
    for at in range(LENGTH):
        allowed = at < n and row["ids"][at] not in (0, 2, 3, 4)
        begins = not words or row["word_starts"][at]
        if not allowed:
            groups.append([])
            left = 0
        elif begins and not left:
            length = next(
                k for k, c in enumerate(np.cumsum(shares), 1) if draws[at] < c or c > 0.9999
            )
            groups.append([at])
            left = length - 1
        else:
            groups[-1].append(at)
            left -= bool(begins)
    order = sorted(range(len(groups)), key=lambda g: scores[min(g + 1, LENGTH - 1)])
    chosen: set[int] = set()
    for group in order:
        if groups[group] and len(groups[group]) <= wanted - len(chosen):
            chosen |= set(groups[group])
    return chosen


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("name", ["spans", "ngrams"])
def test_the_choice_is_that_of_loops(batch, name: str, words: bool):
    """Catches spans that cross a special, cut a word, overlap, or are of other lengths than drawn; and groups that
    would have fitted and were left out."""
    unit = units.of(name, 0, words)
    noise = noise_ops.for_rows(jax.random.key(3), jnp.asarray(batch["rows"]))
    slots = corrupt.slot_count(0.15, LENGTH)

    @jax.jit
    def choose(b):
        budget = Budget(0.15, slots)
        return corrupt.choose(
            noise, b["ids"], b["docs"], b["word_starts"], SPECIAL, budget, slots, unit
        )

    chosen, weights = map(np.asarray, choose(batch))
    places = noise_ops.count(LENGTH)
    scores = np.asarray(noise_ops.uniform(noise, places))
    draws = np.asarray(noise_ops.uniform(noise.at(0), places))
    longer = 0
    for r in range(ROWS):
        row = {field: x[r] for field, x in batch.items()}
        found = set(chosen[r][weights[r] > 0].tolist())
        assert found == plainly(row, draws[r], scores[r], unit.shares, words), r
        longer += sum(at + 1 in found for at in found)
    assert longer > ROWS


@pytest.mark.parametrize(("name", "mean"), [("spans", 3.797), ("ngrams", 1.636)])
def test_lengths_are_those_of_their_source(name: str, mean: float):
    """Catches a geometric distribution whose tail is put on the longest (mean 4.46 in place of SpanBERT's 3.8), equal
    shares of n-grams, and lengths off by one."""
    unit, rows, length = units.of(name, 0, False), 200, 400
    noise = noise_ops.for_rows(jax.random.key(0), jnp.arange(rows))
    all_of = jnp.ones((rows, length), bool)
    group = np.asarray(jax.jit(lambda: unit.groups(noise, all_of, all_of))())
    lengths = np.concatenate([np.bincount(row)[1:-1] for row in group])
    share = np.bincount(lengths, minlength=len(unit.shares) + 1)[1:] / len(lengths)
    assert lengths.mean() == pytest.approx(mean, rel=0.02)
    assert np.abs(share - unit.shares).max() < 0.01
    assert len(unit.shares) == len(share)


def test_a_share_falls_and_shapes_stay(batch):
    """Catches a share that jumps, does not arrive, or leaves its slots too few at the beginning."""
    options = MaskOptions(**PLAIN | {"mask_prob_first": 0.3, "mask_prob_steps": 100})
    plain = MaskOptions(**PLAIN)

    @jax.jit
    def corrupted(step):
        own = {"step": jnp.full(ROWS, step)}
        return options.corrupt(batch | own, jax.random.key(0), SPECIAL, VOCAB)

    full = int((batch["docs"] > 0).sum(1)[-1])
    assert full == LENGTH
    found = {step: corrupted(step) for step in (0, 50, 100, 1000)}
    counts = {step: int(x["weights"][-1].sum()) for step, x in found.items()}
    # Of 96 tokens, at most int((share + 0.005) x 96).
    assert counts == {0: 29, 50: 22, 100: 14, 1000: 14}
    assert {x["chosen"].shape[1] for x in found.values()} == {29}
    at_last = jax.jit(lambda: plain.corrupt(batch, jax.random.key(0), SPECIAL, VOCAB))()
    evaluated = jax.jit(lambda: options.corrupt(batch, jax.random.key(0), SPECIAL, VOCAB))()
    for after in (found[100], evaluated):
        assert np.array_equal(after["masked"], at_last["masked"])
        assert np.array_equal(corrupt.selected(after), corrupt.selected(at_last))


def test_a_full_row_at_the_middle():
    """Catches rounding of the share in place of the count: 0.225 x 96 = 21.6, at most 22 slots of it."""
    options = MaskOptions(**PLAIN | {"mask_prob_first": 0.3, "mask_prob_steps": 100})
    step = jnp.full(1, 50)
    budget = options.budget({"ids": jnp.zeros((1, LENGTH), jnp.int32), "step": step})
    assert float(budget.share[0]) == pytest.approx(0.225)
    assert int(budget.most[0]) == 22


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masking": "span"}, "Did you mean 'spans'"),
        ({"span_max": 4}, "span_max=4 is an option of spans and ngrams"),
        ({"masking": "spans", "span_max": 99}, "span_max=99 must be in"),
        ({"mask_prob_first": 0.3}, "a rate that changes needs both"),
        ({"mask_prob_steps": 30}, "a rate that changes needs both"),
        ({"mask_prob_first": 1.0, "mask_prob_steps": 3}, "mask_prob_first=1.0 must be in"),
    ],
)
def test_impossible_options_are_refused(changes: dict, message: str):
    """Catches an option that silently does nothing."""
    with pytest.raises(UserError, match=message):
        MaskOptions(**PLAIN | changes)
