"""What is chosen, masked and replaced: counts, shares and uniformity, words taken whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.objective import corrupt, units
from electra_jax.objective.corrupt import Budget, MaskOptions
from electra_jax.ops import noise as noise_ops
from electra_jax.spec import UserError
from electra_jax.text.tokenizer import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
VOCAB, LENGTH, SLOTS = 500, 128, 19


@functools.partial(jax.jit, static_argnames=("whole_word", "slots", "mask_prob"))
def choose(ids, docs, starts, seed=0, whole_word=False, slots=SLOTS, mask_prob=0.15):
    noise = noise_ops.for_rows(jax.random.key(seed), jnp.arange(ids.shape[0]))
    unit = units.of("tokens", 0, whole_word)
    return corrupt.choose(noise, ids, docs, starts, SPECIAL, Budget(mask_prob, slots), slots, unit)


def rows(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and docs of rows of these lengths: [CLS] a [SEP] b [SEP], with some [MASK] and [UNK]."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(5, VOCAB, (len(lengths), LENGTH)).astype(np.int32)
    ids[draw.random(ids.shape) < 0.05] = SPECIAL.unk
    ids[draw.random(ids.shape) < 0.05] = SPECIAL.mask
    docs = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int32)
    ids[docs == 0] = SPECIAL.pad
    for row, n in zip(ids, lengths, strict=True):
        if n:
            row[[0, n // 2, n - 1]] = SPECIAL.cls, SPECIAL.sep, SPECIAL.sep
    return ids, docs


def candidates(ids: np.ndarray, docs: np.ndarray) -> np.ndarray:
    return (docs > 0) & ~np.isin(ids, [SPECIAL.pad, SPECIAL.cls, SPECIAL.sep, SPECIAL.mask])


@pytest.mark.parametrize(
    ("mask_prob", "length", "slots"),
    [(0.15, 128, 19), (0.15, 512, 79), (0.25, 512, 130), (0.01, 16, 1)],
)
def test_slots(mask_prob: float, length: int, slots: int):
    """Catches ceil or round in place of the original's int((p + 0.005) x L), or no slot at all."""
    assert corrupt.slot_count(mask_prob, length) == slots


@pytest.mark.parametrize("whole_word", [False, True])
def test_which_and_how_many(whole_word: bool):
    """Catches a count without [CLS] and [SEP] or with padding, another rounding, repeated
    positions, and specials or pads chosen; with every token a word, as in Chinese, whole words
    change nothing."""
    ids, docs = rows([*range(129), *[128] * 50])
    chosen, weights = map(np.asarray, choose(ids, docs, docs, whole_word=whole_word))
    assert chosen.shape == weights.shape == (len(ids), SLOTS)
    assert chosen.dtype == np.int32
    assert weights.dtype == np.float32
    allowed = candidates(ids, docs)
    lengths = docs.sum(1).astype(np.float32)
    wanted = np.clip(np.round(np.float32(0.15) * lengths), 1, SLOTS)
    assert np.array_equal(weights.sum(1), np.minimum(wanted, allowed.sum(1)))
    assert weights[128].sum() == 19
    for row in range(len(ids)):
        real = chosen[row][weights[row] > 0]
        assert allowed[row][real].all()
        assert len(set(chosen[row])) == SLOTS  # those of weight 0 too: splice relies on it


@pytest.mark.parametrize("whole_word", [False, True])
def test_uniform_over_candidates(whole_word: bool):
    """Catches a bias towards the start or end of a row, and neighbours that go together."""
    ids, docs = rows([64], seed=1)
    many = 6000
    tiled = (np.tile(ids, (many, 1)), np.tile(docs, (many, 1)))
    chosen, weights = map(np.asarray, choose(*tiled, tiled[1], whole_word=whole_word))
    taken = np.zeros((many, LENGTH))
    np.put_along_axis(taken, chosen, weights, axis=1)
    at = np.flatnonzero(candidates(ids, docs)[0])
    k, n = 10, len(at)  # round(0.15 x 64)
    assert taken.sum() == many * k
    # Draws without replacement vary less than independent ones, by (n - k) / (n - 1).
    expected = many * k / n
    statistic = ((taken[:, at].sum(0) - expected) ** 2).sum() / expected * (n - 1) / (n - k)
    assert stats.chi2.sf(statistic, n - 1) > 1e-6
    both = (taken[:, at[1:]] * taken[:, at[:-1]]).sum()
    chance = many * (n - 1) * k * (k - 1) / (n * (n - 1))
    assert abs(both - chance) < 5 * np.sqrt(chance) * 1.5


def words(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of words of one to five pieces, and the word that each position belongs to."""
    ids, docs = rows([128] * 40 + [40] * 40 + [9] * 40, seed)
    ids[ids == SPECIAL.mask] = 5
    draw = np.random.default_rng(seed + 1)
    starts = (draw.random(ids.shape) < 0.4).astype(np.int32)
    fixed = ~candidates(ids, docs)
    starts[fixed] = 1
    starts[:, 1:][fixed[:, :-1]] = 1
    starts[docs == 0] = 0
    return ids, docs, starts, np.cumsum(starts, axis=1)


def test_words_are_taken_whole_and_every_one_that_fits():
    """Catches a word cut at the limit, one that swallows a special, and a search that stops at the
    first word too long: no word left out would have fitted what room was left."""
    ids, docs, starts, word = words(0)
    chosen, weights = map(np.asarray, choose(ids, docs, starts, whole_word=True))
    allowed = candidates(ids, docs)
    wanted = np.clip(np.round(np.float32(0.15) * docs.sum(1)), 1, SLOTS)
    several = 0
    for row in range(len(ids)):
        taken = np.zeros(LENGTH, bool)
        taken[chosen[row][weights[row] > 0]] = True
        assert allowed[row][taken].all()
        room = wanted[row] - taken.sum()
        assert room >= 0
        for number in np.unique(word[row][allowed[row]]):
            pieces = (word[row] == number) & allowed[row]
            assert taken[pieces].all() or not taken[pieces].any()
            assert taken[pieces].all() or pieces.sum() > room
            several += taken[pieces].all() and pieces.sum() > 1
    assert several > 100


def test_rows_without_candidates_are_left_alone():
    """Catches an empty row, or one of specials, whose padding is masked."""
    ids, docs = rows([0, 3, 4])
    ids[2, 1] = 7
    options = MaskOptions(mask_prob=0.15, mask_split=(1.0, 0.0, 0.0), whole_word=False)
    batch = {
        "ids": jnp.asarray(ids),
        "docs": jnp.asarray(docs),
        "word_starts": jnp.asarray(docs),
        "rows": jnp.arange(3),
    }
    out = jax.jit(lambda b: options.corrupt(b, jax.random.key(0), SPECIAL, VOCAB))(batch)
    assert np.array_equal(out["weights"].sum(1), [0, 0, 1])
    masked = np.asarray(out["masked"])
    assert np.array_equal(masked[:2], ids[:2])
    assert np.flatnonzero(masked[2] != ids[2]).tolist() == [1]
    assert masked[2, 1] == SPECIAL.mask


@functools.partial(jax.jit, static_argnums=0)
def mask(split, ids, chosen, weights):
    noise = noise_ops.for_rows(jax.random.key(3), jnp.arange(ids.shape[0]))
    return corrupt.mask(noise, ids, chosen, weights, split, SPECIAL, VOCAB)


@pytest.mark.parametrize("split", [(0.85, 0.15, 0.0), (0.8, 0.1, 0.1), (0.0, 0.0, 1.0)])
def test_shares_of_masked_kept_and_random(split: tuple[float, float, float]):
    """Catches 80/10/10 for everything, a random share that was asked for none, random ids from a
    narrow range, and slots of weight 0 written."""
    many, slots = 2000, 20
    ids = np.tile(np.arange(600, 700, dtype=np.int32), (many, 1))  # no id that a draw gives
    chosen = np.tile(np.arange(0, 100, 5, dtype=np.int32), (many, 1))
    weights = np.tile((np.arange(slots) < 15).astype(np.float32), (many, 1))
    out = np.asarray(mask(split, ids, chosen, weights))
    real = chosen[0][:15]
    untouched = np.setdiff1d(np.arange(100), real)
    assert np.array_equal(out[:, untouched], ids[:, untouched])
    new = out[:, real]
    random = new[(new != ids[:, real]) & (new != SPECIAL.mask)]
    kept = new == ids[:, real]
    found = np.array([new.size - kept.sum() - random.size, kept.sum(), random.size])
    lost = np.array([1, 0, -1]) * random.size / VOCAB  # random ids that happen to be [MASK]
    share = np.array(split)
    limit = 5 * np.sqrt(new.size * share * (1 - share)) + lost[0] * 2
    assert np.all(np.abs(found - lost - share * new.size) <= limit)
    if split[2]:
        counts = np.bincount(random, minlength=VOCAB)
        assert len(counts) == VOCAB
        counts = np.delete(counts, SPECIAL.mask)
        assert stats.chisquare(counts).pvalue > 1e-6


def test_splice_writes_and_restores():
    """Catches a slot of weight 0 that writes, a dtype that widens, and rows that mix."""
    ids = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
    chosen = jnp.array([[1, 4, 0], [5, 0, 2]])
    weights = jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    new = jnp.array([[90, 91, 92], [93, 94, 95]])
    out = corrupt.splice(ids, chosen, weights, new)
    assert out.dtype == jnp.int32
    assert out.tolist() == [[0, 90, 2, 3, 91, 5], [6, 7, 8, 9, 10, 93]]


def test_masks_belong_to_the_row_not_to_its_place():
    """Catches masks that change with the micro-batch: rows in another order keep theirs."""
    ids, docs = rows([128, 90, 60, 30])
    options = MaskOptions(mask_prob=0.15, mask_split=(0.4, 0.3, 0.3), whole_word=True)

    @jax.jit
    def corrupted(batch):
        return options.corrupt(batch, jax.random.key(0), SPECIAL, VOCAB)

    batch = {"ids": ids, "docs": docs, "word_starts": docs, "rows": np.arange(4)}
    whole = corrupted(batch)
    order = np.array([2, 0, 3, 1])
    part = corrupted({name: x[order] for name, x in batch.items()})
    for name in ("chosen", "weights", "masked"):
        assert np.array_equal(part[name], np.asarray(whole[name])[order])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_prob": 0.0}, "objective.mask_prob=0.0 must be between 0 and 1"),
        ({"mask_prob": 1.0}, "objective.mask_prob"),
        ({"mask_split": (0.8, 0.1, 0.2)}, "three shares"),
        ({"mask_split": (0.8, 0.2)}, "three shares"),
        ({"mask_split": (1.2, -0.2, 0.0)}, "three shares"),
    ],
)
def test_impossible_options_are_refused(changes: dict, message: str):
    """Catches shares that silently mean something else."""
    options = {"mask_prob": 0.15, "mask_split": (0.85, 0.15, 0.0), "whole_word": False}
    with pytest.raises(UserError, match=message):
        MaskOptions(**options | changes)
