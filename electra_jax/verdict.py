"""What the quickstart shows of a run: numbers to hold its metrics against, and its verdict on a sentence."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.data import loader
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.model.electra import Electra
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.train import baselines, checkpoint, mesh, program, workdir
from electra_jax.train.options import RunSpec, run_spec

ENDS = frozenset(".!?。！？")  # what a sentence ends with
SHORTEST, LONGEST = 8, 20  # words of a sentence to show
FAMILIAR = 5  # a word that is put in stands at least this often in the training text
LETTERS = 3  # and has at least this many letters, or one that is not ASCII
READ_ROWS = 4096
BAR = 20  # characters of a full bar


class Sentence(NamedTuple):
    """Token ids of a sentence and, for each of its words, the range of its tokens."""

    ids: np.ndarray
    words: list[range]


def by_counting(folder: str | Path) -> dict[str, float]:
    """What word frequencies and constants reach on the rows that `evaluate` measures a run on.

    They judge the replacements that the trained generator made: a rare token looks replaced.
    """
    run, data = _open(folder)
    t, valid, s = run.train, data.source("valid"), data.special
    special = (s.pad, s.cls, s.sep, s.mask)
    counted = baselines.fit(data.source("train"), data.vocab_size, special, None)
    numbers = np.arange(min(len(valid), t.batch * t.eval_batches))
    pairs = baselines.count(valid, numbers, data.vocab_size, special)
    unigram = baselines.language_model(counted, pairs)["unigram"]
    rows, (fake, replaced) = valid.rows(numbers), _corrupted(folder, run, data, len(numbers))
    return {
        "mlm_loss": unigram["mlm_loss_copying"],
        "mlm_accuracy": unigram["mlm_accuracy_copying"],
        "disc_auc": baselines.detector(counted, rows["docs"], fake, replaced)["unigram"],
        "disc_accuracy": 1 - float(replaced[rows["docs"] > 0].mean()),
        "disc_recall": 0.0,
    }


def _corrupted(
    folder: str | Path, run: RunSpec, data: Prepared, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """The held-out rows as the generator corrupts them, and where it did; int32 and bool [rows, L]."""
    program.use_compilation_cache()
    compiled = program.build(run, run.phases(data)[-1], mesh.build(run.mesh))
    params = compiled.place_params(checkpoint.read_params(folder)[1])
    source, t, extra = data.source("valid"), run.train, compiled.objective.extra()
    fakes, labels = [], []
    batches = loader.fixed_batches(source, t.batch, t.eval_batches, compiled.batch_sharding)
    for number, batch in enumerate(batches):
        _, tokens = compiled.eval_step(params, extra, batch, compiled.scalar(number * t.batch))
        fakes.append(jax.device_get(tokens["ids"]))
        labels.append(jax.device_get(tokens["label"]))
    return np.concatenate(fakes)[:rows], np.concatenate(labels)[:rows] > 0


def of_a_sentence(folder: str | Path, seed: int) -> str:
    """Lines of text: a held-out sentence with one word replaced, both drawn by `seed`, and every word's score.

    The score of a word is the highest probability of having been replaced among its tokens.
    """
    run, data = _open(folder)
    words = tokenizer.load(data.path / "tokenizer")
    known = _familiar(data, words)
    rng = np.random.default_rng(seed)
    sentence, at = _sentence(data, words, known, rng)
    spot = sentence.words[at].start
    fake = sentence.ids.copy()
    fake[spot] = rng.choice(known[known != sentence.ids[spot]])
    probability = _probabilities(folder, run, data, fake)
    score = np.array([probability[word.start : word.stop].max() for word in sentence.words])
    guess = int(score.argmax())
    was = words.decode(sentence.ids[spot : spot + 1].tolist())
    lines = []
    for number, word in enumerate(sentence.words):
        text = words.decode(fake[word.start : word.stop].tolist())
        notes = [f"replaced: was {was!r}"] * (number == at) + ["<- its guess"] * (number == guess)
        bar = "#" * round(score[number] * BAR)
        lines.append(f"{text:>20} {score[number]:6.1%} {bar:{BAR}} {'  '.join(notes)}".rstrip())
    place = 1 + int((score > score[at]).sum())
    right = f"RIGHT: of {len(score)} words it finds the replaced one the most suspicious."
    wrong = (
        f"WRONG: of {len(score)} words it finds the replaced one only number {place} in suspicion."
    )
    return "\n".join([*lines, right if guess == at else wrong])


def _open(folder: str | Path) -> tuple[RunSpec, Prepared]:
    run = run_spec(workdir.read_record(folder)["config"])
    return run, open_prepared(run.data.path)


def _blocks(data: Prepared, split: str) -> Iterator[dict[str, np.ndarray]]:
    source = data.source(split)
    for start in range(0, len(source), READ_ROWS):
        yield source.rows(np.arange(start, min(len(source), start + READ_ROWS)))


def _familiar(data: Prepared, words: tokenizer.Tokenizer) -> np.ndarray:
    """The tokens that stand as whole words in the training text, often enough and long enough to be words."""
    count_V = np.zeros(data.vocab_size, np.int64)
    for rows in _blocks(data, "train"):
        starts, ids = rows["word_starts"][:, :-1] > 0, rows["ids"][:, :-1]
        whole = starts & (rows["word_starts"][:, 1:] > 0)  # the next token begins a word too
        count_V += np.bincount(ids[whole], minlength=data.vocab_size)
    count_V[list(data.special)] = 0
    found = np.flatnonzero(count_V >= FAMILIAR)
    return np.array([i for i in found.tolist() if _is_word(words.decode([i]))], np.int64)


def _is_word(text: str) -> bool:
    return text.isalpha() and (len(text) >= LETTERS or not text.isascii())


def _sentence(
    data: Prepared, words: tokenizer.Tokenizer, known: np.ndarray, rng: np.random.Generator
) -> tuple[Sentence, int]:
    """A sentence of the held-out text and the number of a word in it that is one familiar token."""
    found = [sentence for rows in _blocks(data, "valid") for sentence in _sentences(rows, words)]
    for number in rng.permutation(len(found)).tolist():
        sentence = found[number]
        spots = [
            i
            for i, word in enumerate(sentence.words)
            if len(word) == 1 and sentence.ids[word.start] in known
        ]
        if spots and len(known) > 1:
            return sentence, int(rng.choice(spots))
    raise UserError(
        "the held-out text has no sentence to show: its words are all too rare or too long"
    )


def _sentences(rows: dict[str, np.ndarray], words: tokenizer.Tokenizer) -> Iterator[Sentence]:
    """The whole sentences of these rows: from one full stop to the next, within one segment."""
    special = set(words.special)
    ends = {i for i in np.unique(rows["ids"]).tolist() if words.decode([i]) in ENDS}
    for ids, starts in zip(rows["ids"], rows["word_starts"], strict=True):
        begin = None
        for i, token in enumerate(ids.tolist()):
            if token in special:
                begin = None  # a segment may begin in the middle of a sentence
            elif token in ends:
                if begin is not None:
                    bounds = [*np.flatnonzero(starts[begin : i + 1]).tolist(), i + 1 - begin]
                    if SHORTEST <= len(bounds) - 1 <= LONGEST:
                        pieces = [range(a, b) for a, b in itertools.pairwise(bounds)]
                        yield Sentence(ids[begin : i + 1], pieces)
                begin = i + 1


def _probabilities(folder: str | Path, run: RunSpec, data: Prepared, ids: np.ndarray) -> np.ndarray:
    """The probability of having been replaced for each token, read alone as [CLS] sentence [SEP]."""
    _, params, _ = checkpoint.read_params(folder)
    ids_BxL = jnp.asarray([[data.special.cls, *ids.tolist(), data.special.sep]], jnp.int32)
    one_BxL = jnp.ones_like(ids_BxL)
    positions_BxL = jnp.arange(ids_BxL.shape[1], dtype=jnp.int32)[None]
    logits_BxL = Electra(run.dimensions(data.vocab_size)).apply(
        {"params": params},
        ids_BxL,
        0 * one_BxL,
        one_BxL,
        positions_BxL,
        method=Electra.discriminate,
    )
    return np.asarray(jax.nn.sigmoid(logits_BxL))[0, 1:-1]
