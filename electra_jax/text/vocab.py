"""Trains a vocabulary: WordPiece, or SentencePiece unigram or BPE; same input, same bytes."""

import contextlib
import dataclasses
import functools
import io
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from electra_jax import files
from electra_jax.spec import UserError, check_choice
from electra_jax.text import (
    alphabet,
    effect,
    japanese,
    lost,
    mecab,
    rules,
    special,
    spm,
    tokenizer,
    wordpiece,
)
from electra_jax.text.sources import documents, sample
from electra_jax.text.tokenizer import Tokenizer

KINDS = ("wordpiece", "unigram", "bpe")
_NAMES = {role: names[0] for role, names in special.NAMES.items()}
_SPECIAL = list(_NAMES.values())  # ids 0 to 4

# Sizes that may be asked for; which of them a text allows is found out by training.
LEAST, MOST = len(_SPECIAL) + 1, 5_000_000
# Text of up to so many characters is trained on again to find both ends of what it allows.
_TRY_AGAIN = 20_000_000

# SentencePiece's result depends on how many threads share the work (their sums are added in
# order), so the number is fixed and not that of the machine.
_THREADS = 16
# Log-probabilities are rounded to this fraction. sentencepiece adds them in float32 and `tokenizers`
# in float64; rounded, both sums are exact up to 16,384, so that near ties (one in 100,000 tokens)
# come out the same.
_SCORE_STEPS = 1024
# Characters of a text given to SentencePiece at once. Above a limit of bytes (4,192 unless said) it
# leaves a text out without a word.
_SENTENCE = 1000


def train(
    inputs: Sequence[str],
    kind: str,
    size: int,
    output: str | Path,
    lowercase: bool = True,
    accents: str | None = None,
    sample_bytes: int | None = None,
    text_key: str = "text",
    language: str | None = None,
    max_word: int | None = None,
    segmenter: mecab.Segmenter | None = None,
) -> None:
    """Writes a tokenizer folder with exactly `size` entries, [PAD] [UNK] [CLS] [SEP] [MASK] first.

    `accents` is one of rules.ACCENTS. None keeps them, but for lower-cased WordPiece of text in which
    they are rare, as in English; that has the original BERT's rule. `language` ("tr", "az") has a
    dotless i. Words of WordPiece with more than `max_word` characters (None: 100) are unknown when
    they are encoded. With `sample_bytes` the vocabulary is trained on an even sample of the corpus of
    that size. With a `segmenter` the words of WordPiece are those that it finds (Japanese). What the
    rules change and what is lost is said on stderr.

    Raises UserError for bad input, a `size` that the text does not allow (naming those that it does),
    or an `output` that exists.
    """
    wanted = rules.Rules(lowercase=lowercase, accents=accents or "keep", language=language)
    _check(kind, size, max_word, sample_bytes)
    if segmenter and (kind != "wordpiece" or wanted.accents != "keep" or language or max_word):
        raise UserError(
            "--segmenter mecab is for --kind wordpiece that keeps accents, without --language and "
            "--max-word, as transformers' BertJapaneseTokenizer is"
        )
    files.refuse_existing(output)
    paths = documents.expand(inputs)
    documents.check(paths, text_key)
    texts = sample.Paragraphs(paths, text_key, sample_bytes)
    if segmenter is not None:
        trainer = _japanese(texts, japanese.Options(segmenter, lowercase=lowercase))
    elif kind == "wordpiece":
        automatic = accents is None and lowercase
        trainer = _wordpiece(texts, wanted, automatic, max_word or wordpiece.MAX_WORD)
    else:
        trainer = _sentencepiece(texts, kind, wanted)
    try:
        trained = trainer.train(size)
    except _Refused as refused:
        least, most = _range(trainer, refused)
        allowed = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
        raise UserError(
            f"--size {size} does not suit this text: --kind {kind} allows {allowed}"
            + (" (more text allows more)" if most is not None and size > most else "")
        ) from None
    with files.new_folder(output) as folder:
        trained.save(folder)
    for line in trainer.said:
        print(line, file=sys.stderr)


def _check(kind: str, size: int, max_word: int | None, sample_bytes: int | None) -> None:
    check_choice("--kind", kind, KINDS)
    if not LEAST <= size <= MOST:
        raise UserError(f"--size {size} is not {LEAST} to {MOST:,}")
    wordpiece.check_max_word(max_word)
    if max_word is not None and kind != "wordpiece":
        raise UserError(f"--max-word is for --kind wordpiece; {kind} has no limit, so leave it out")
    if sample_bytes is not None and sample_bytes <= 0:
        raise UserError(f"--sample-bytes {sample_bytes}; expected a positive number of bytes")


class _Trainer(NamedTuple):
    """`train(size)` gives a vocabulary of text of so many characters, or raises _Refused; `said` is what
    the user should know of its rules."""

    train: Callable[[int], Tokenizer]
    characters: int
    said: Sequence[str]


class _Refused(Exception):
    """A size that the text does not allow, with the end of the range that was met."""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        super().__init__(least, most)
        self.least, self.most = least, most


def _range(trainer: _Trainer, refused: _Refused) -> tuple[int, int | None]:
    """The least and the most entries that the text allows; None for the most of text too long to try.

    Which rare characters a vocabulary holds depends on its size, so each end is tried before it is named.
    """
    least, most = refused.least, refused.most
    if most is None and trainer.characters > _TRY_AGAIN:
        return least or LEAST, None
    if least is None:
        least = _tried(trainer, LEAST, lambda refusal: refusal.least)
    if most is None:
        most = min(MOST, 8 * trainer.characters + 10_000)
    return least, max(least, _tried(trainer, most, lambda refusal: refusal.most))


def _tried(trainer: _Trainer, size: int, end: Callable[[_Refused], int | None]) -> int:
    """The first size, of those that refusals lead to, that is not refused at this end."""
    while True:
        try:
            trainer.train(size)
        except _Refused as refusal:
            following = end(refusal)
            if following is None or following == size:
                return size
            size = following
        else:
            return size


def _wordpiece(
    texts: Iterable[str], wanted: rules.Rules, automatic: bool, max_word: int
) -> _Trainer:
    """Trains with the `tokenizers` library.

    Its trainer numbers characters in the order of a hash map, and numbers break ties between
    merges. Given as special tokens, sorted, the characters have fixed numbers. What comes out is
    only a list of entries; nothing but the five special tokens is special in the tokenizer.
    """
    long = lost.LongWords(max_word)
    found, total = _count(texts, wanted.accents == "strip", long.add)
    if automatic and effect.is_english_like(found):
        wanted = dataclasses.replace(wanted, accents="bert")
    own = wordpiece.for_text(wanted, max_word)
    blank = own.definition(_SPECIAL, _NAMES["unk"])
    backend = tokenizer.backend(blank, _NAMES)
    normalize = backend.normalizer.normalize_str
    said = [*effect.lines(found, normalize, wanted.accents), *long.lines(total)]
    forms = functools.cache(functools.partial(alphabet.forms, backend=backend))
    counts = alphabet.normalized(found, normalize)

    def train(size: int) -> Tokenizer:
        entries = _pieces(texts, size, tokenizer.backend(blank, _NAMES), counts, forms)
        return Tokenizer(own.definition(entries, _NAMES["unk"]), _NAMES)

    return _Trainer(train, total, said)


def _japanese(texts: Iterable[str], options: japanese.Options) -> _Trainer:
    """WordPiece over the words that MeCab finds."""
    words = japanese.Words(options, ())
    cut = _Cut(texts, words)
    raw, _ = _count(texts, compose=True)
    wanted = rules.Rules(lowercase=options.lowercase)
    counts, total = _count(cut, compose=False)
    said = list(effect.lines(raw, wanted.normalize, "keep"))
    counts.pop(" ", None)

    def forms(character: str) -> list[str]:
        return [character, f"{wordpiece.PREFIX}{character}"]

    def train(size: int) -> Tokenizer:
        library = tokenizers.Tokenizer(tokenizers.models.WordPiece({}, unk_token=_NAMES["unk"]))
        library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        entries = _pieces(cut, size, library, counts, forms)
        return Tokenizer(japanese.definition(entries, _NAMES["unk"], options), _NAMES)

    return _Trainer(train, total, said)


class _Cut:
    """Texts with a blank between words; may be iterated more than once."""

    def __init__(self, texts: Iterable[str], words: Callable[[str], list[str]]) -> None:
        self._texts, self._words = texts, words

    def __iter__(self) -> Iterator[str]:
        return (" ".join(self._words(text)) for text in self._texts)


def _pieces(
    texts: Iterable[str],
    size: int,
    library: tokenizers.Tokenizer,
    counts: dict[str, int],
    forms: Callable[[str], list[str]],
) -> list[str]:
    """The `size` entries that the library's trainer finds in the words of `library`.

    `counts` are those of the characters, `forms` their entries. Raises _Refused for a size too large.
    """
    characters = alphabet.choose(counts, size, forms)
    entries = sorted(entry for character in characters for entry in forms(character))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,  # a merge seen once is no pattern
        show_progress=sys.stderr.isatty(),
        special_tokens=_SPECIAL + entries,
        limit_alphabet=len(characters),
        initial_alphabet=characters,
        continuing_subword_prefix=wordpiece.PREFIX,
    )
    library.train_from_iterator(texts, trainer)
    ids = library.get_vocab(with_added_tokens=False)
    trained = sorted(ids, key=ids.__getitem__)
    if len(trained) < size:  # nothing left to merge: rarer characters fill the rest
        trained += [e for c in alphabet.ranked(counts) for e in forms(c) if e not in ids]
        if len(trained) < size:
            raise _Refused(LEAST, len(trained))
    return trained[:size]


def _count(
    texts: Iterable[str], compose: bool, seen: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, int], int]:
    """The characters of the texts by how often they occur, and how many there are; `seen` is shown each text.

    With `compose` a letter and its mark count as one character where there is one, as rules that look
    at both see them.
    """
    counts, total = alphabet.CharacterCounts(), 0
    for text in texts:
        seen(text)
        total += len(text)
        if compose and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        counts.add(text)
    return counts.by_character(), total


def _sentencepiece(texts: Iterable[str], kind: str, wanted: rules.Rules) -> _Trainer:
    import sentencepiece

    found, total = _count(texts, compose=True)
    counts = alphabet.normalized(found, wanted.normalize)
    built_in = rules.built_in(wanted)
    normalize: Callable[[str], str] = wanted.normalize
    if built_in is not None:
        normalize = sentencepiece.SentencePieceNormalizer(
            rule_name=built_in, add_dummy_prefix=False, escape_whitespaces=False
        ).normalize
    said = list(effect.lines(found, normalize, wanted.accents))

    def train(size: int) -> Tokenizer:
        options = _options(kind, size, alphabet.choose(counts, size))
        model = io.BytesIO()
        with contextlib.ExitStack() as stack:
            if built_in is None:
                table = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".tsv"))
                table.write(rules.table(wanted))
                table.flush()
                options["normalization_rule_tsv"] = table.name
            else:
                options["normalization_rule_name"] = built_in
            try:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=_sentences(texts), model_writer=model, **options
                )
            except RuntimeError as error:
                raise _refusal(str(error)) from None
        proto = spm.parse("the trained model", model.getvalue())
        # The name of a temporary file would make the bytes differ.
        proto.normalizer_spec.ClearField("normalization_rule_tsv")
        for piece in proto.pieces:
            piece.score = round(piece.score * _SCORE_STEPS) / _SCORE_STEPS
        data = proto.SerializeToString(deterministic=True)
        return tokenizer.from_model("the trained model", proto, data)

    return _Trainer(train, total, said)


def _options(kind: str, size: int, characters: Sequence[str]) -> dict[str, Any]:
    """What SentencePiece's trainer is told besides the rules."""
    return {
        "model_type": kind,
        "vocab_size": size,
        "character_coverage": alphabet.COVERAGE,
        "required_chars": "".join(characters),
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": 2,
        "eos_id": 3,
        "pad_piece": _NAMES["pad"],
        "unk_piece": _NAMES["unk"],
        "bos_piece": _NAMES["cls"],
        "eos_piece": _NAMES["sep"],
        "control_symbols": [_NAMES["mask"]],
        "max_sentence_length": 4 * _SENTENCE + 1,  # UTF-8 takes four bytes at most
        "shuffle_input_sentence": False,
        "num_threads": _THREADS,
        "minloglevel": 0 if sys.stderr.isatty() else 2,  # its log is its progress line
    }


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """The texts, those too long for SentencePiece cut at spaces (or anywhere, without spaces)."""
    for text in texts:
        start = 0
        while len(text) - start > _SENTENCE:
            space = text.rfind(" ", start, start + _SENTENCE)
            end = space if space > start else start + _SENTENCE
            yield text[start:end]
            start = end
        yield text[start:]


def _refusal(message: str) -> Exception:
    """SentencePiece's refusal as ours."""
    if at := re.search(r"<= (\d+)\.", message):
        return _Refused(most=int(at[1]))
    if at := re.search(r"(\d+) vs (\d+)", message):
        return _Refused(least=int(at[2]))
    return UserError(f"SentencePiece could not train on this corpus: {message}")
