"""What the quickstart shows of a run: numbers to hold its metrics against, and its verdict on sentences."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from electra_jax.data import ngrams
from electra_jax.data.source import Prepared
from electra_jax.learn import checkpoint, mesh
from electra_jax.learn import program as programs
from electra_jax.pretrain import baselines, program
from electra_jax.pretrain.options import RunSpec, run_spec
from electra_jax.spec import UserError
from electra_jax.text import tokenizer
from electra_jax.workdir.record import read_record

ENDS = frozenset(".!?。！？")  # what a sentence ends with
SHORTEST, LONGEST = 8, 20  # words of a sentence to show
FAMILIAR = 5  # a word that is put in stands at least this often in the training text
LETTERS = 3  # and has at least this many letters, or one that is not ASCII
MANY = 200  # sentences to judge
READ_ROWS = 4096
BAR = 20  # characters of a full bar


class Sentence(NamedTuple):
    """Token ids of a sentence and, for each of its words, the range of its tokens."""

    ids: np.ndarray
    words: list[range]


class Trial(NamedTuple):
    """A sentence, the number of the word that was replaced in it, and its token ids after that."""

    sentence: Sentence
    at: int
    fake: np.ndarray


def by_counting(folder: str | Path) -> dict[str, float]:
    """What word frequencies and constants reach on the rows that `evaluate` measures a run on.

    They judge the replacements that the trained generator made: a rare token looks replaced.
    """
    run, data = _open(folder)
    t, valid, s = run.train, data.source("valid"), data.special
    special = (s.pad, s.cls, s.sep, s.mask)
    counted = ngrams.fit(data.source("train"), data.vocab_size, special, None)
    numbers = np.arange(min(len(valid), t.batch * t.eval_batches))
    pairs = ngrams.count(valid, numbers, data.vocab_size, special)
    unigram = baselines.language_model(counted, pairs)["unigram"]
    made = _replacements(folder, run, data)
    return {
        "mlm_loss": unigram["mlm_loss_copying"],
        "mlm_accuracy": unigram["mlm_accuracy_copying"],
        "disc_auc": baselines.detector(counted, made.docs, made.fake, made.replaced)["unigram"],
        "disc_accuracy": 1 - float(made.replaced[made.docs > 0].mean()),
        "disc_recall": 0.0,
    }


def _replacements(folder: str | Path, run: RunSpec, data: Prepared) -> baselines.Replacements:
    """What the trained generator puts into the held-out rows that `evaluate` measures a run on."""
    programs.use_compilation_cache()
    compiled = program.build(run, run.phases(data)[-1], mesh.build(run.mesh))
    saved, t = checkpoint.read(folder), run.train
    params, carried = (
        compiled.place("params", saved.params),
        compiled.place("carried", saved.carried),
    )
    valid = data.source("valid")
    return baselines.replacements(compiled, params, carried, valid, t.batch, t.eval_batches)


def of_sentences(folder: str | Path, seed: int) -> str:
    """Lines of text: a held-out sentence with one word replaced and every word's score; then the tally over many.

    Sentences, words and replacements are drawn by `seed`. The score of a word is the highest probability of having
    been replaced among its tokens, the sentence being read alone.
    """
    run, data = _open(folder)
    words = tokenizer.load(data.path / "tokenizer")
    trials = _trials(data, words, np.random.default_rng(seed))
    scores = _scores(folder, run, data, trials)
    right = sum(
        int(score.argmax()) == trial.at for trial, score in zip(trials, scores, strict=True)
    )
    chance = sum(1 / len(trial.sentence.words) for trial in trials)
    n = len(trials)
    tally = f"Over {n} such sentences it is right in {right / n:.0%}; guessing would be in {chance / n:.0%}."
    return "\n".join([*_lines(trials[0], scores[0], words), tally])


def _lines(trial: Trial, score: np.ndarray, words: tokenizer.Tokenizer) -> list[str]:
    ids, guess = trial.sentence.ids, int(score.argmax())
    first = trial.sentence.words[trial.at].start
    was = words.decode(ids[first : first + 1].tolist())
    lines = []
    for number, word in enumerate(trial.sentence.words):
        text = words.decode(trial.fake[word.start : word.stop].tolist())
        notes = [f"replaced: was {was!r}"] * (number == trial.at) + ["<- its guess"] * (
            number == guess
        )
        bar = "#" * round(float(score[number]) * BAR)
        lines.append(f"{text:>20} {score[number]:6.1%} {bar:{BAR}} {'  '.join(notes)}".rstrip())
    place = 1 + int((score > score[trial.at]).sum())
    if guess == trial.at:
        return [
            *lines,
            f"RIGHT: of {len(score)} words it finds the replaced one the most suspicious.",
        ]
    return [
        *lines,
        f"WRONG: of {len(score)} words it finds the replaced one only number {place} in suspicion.",
    ]


def _open(folder: str | Path) -> tuple[RunSpec, Prepared]:
    run = run_spec(read_record(folder)["config"], folder)
    return run, run.data.open()


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


def _trials(data: Prepared, words: tokenizer.Tokenizer, rng: np.random.Generator) -> list[Trial]:
    """Sentences of the held-out text, each with a word that is one familiar token replaced by another such."""
    known = _familiar(data, words)
    found = [sentence for rows in _blocks(data, "valid") for sentence in _sentences(rows, words)]
    trials: list[Trial] = []
    for number in rng.permutation(len(found)).tolist():
        sentence = found[number]
        single = [i for i, word in enumerate(sentence.words) if len(word) == 1]
        spots = [i for i in single if sentence.ids[sentence.words[i].start] in known]
        if spots and len(known) > 1 and len(trials) < MANY:
            at = int(rng.choice(spots))
            spot, fake = sentence.words[at].start, sentence.ids.copy()
            fake[spot] = rng.choice(known[known != sentence.ids[spot]])
            trials.append(Trial(sentence, at, fake))
    if not trials:
        raise UserError(
            "the held-out text has no sentence to show: its words are too rare or too long"
        )
    return trials


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


def _scores(
    folder: str | Path, run: RunSpec, data: Prepared, trials: Sequence[Trial]
) -> list[np.ndarray]:
    """Of each trial, the score of each word: its most suspicious token's probability of having been replaced."""
    _, params, _ = checkpoint.read_params(folder)
    ids_BxL = np.full((len(trials), data.seq_len), data.special.pad, np.int32)
    for row, trial in zip(ids_BxL, trials, strict=True):
        row[: len(trial.fake) + 2] = [data.special.cls, *trial.fake.tolist(), data.special.sep]
    docs_BxL = (ids_BxL != data.special.pad).astype(np.int32)
    text = {"ids": ids_BxL, "types": np.zeros_like(ids_BxL), "docs": docs_BxL}
    logits_BxL = run.make_objective(data).scores(params, text)
    if logits_BxL is None:
        raise UserError(f"the objective of {folder} has no score for tokens")
    probability_BxL = np.asarray(jax.nn.sigmoid(logits_BxL))[:, 1:]
    return [
        np.array([row[word.start : word.stop].max() for word in trial.sentence.words])
        for row, trial in zip(probability_BxL, trials, strict=True)
    ]
