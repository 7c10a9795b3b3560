"""Trains a vocabulary: WordPiece, or SentencePiece unigram or BPE; same input, same bytes."""

import contextlib
import functools
import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from electra_jax import files
from electra_jax.spec import UserError, check_choice
from electra_jax.text import alphabet, documents, rules, sample, special, spm, tokenizer, wordpiece
from electra_jax.text.tokenizer import Tokenizer

KINDS = ("wordpiece", "unigram", "bpe")
_NAMES = {role: names[0] for role, names in special.NAMES.items()}
_SPECIAL = list(_NAMES.values())  # ids 0 to 4

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
    strip_accents: bool | None = None,
    sample_bytes: int | None = None,
    text_key: str = "text",
) -> None:
    """Writes a tokenizer folder with exactly `size` entries, [PAD] [UNK] [CLS] [SEP] [MASK] first.

    `strip_accents` None means the same as `lowercase`, as in BERT. With `sample_bytes` the
    vocabulary is trained on an even sample of the corpus of that size. Raises UserError for bad
    input, a corpus too small for `size` (naming the size it allows), or an `output` that exists.
    """
    check_choice("--kind", kind, KINDS)
    if size <= len(_SPECIAL):
        raise UserError(f"--size {size} leaves no room beside the five special tokens")
    if sample_bytes is not None and sample_bytes <= 0:
        raise UserError(f"--sample-bytes {sample_bytes}; expected a positive number of bytes")
    files.refuse_existing(output)
    paths = documents.expand(inputs)
    documents.check(paths, text_key)
    strip = lowercase if strip_accents is None else strip_accents
    texts = sample.Paragraphs(paths, text_key, sample_bytes)
    if kind == "wordpiece":
        trained = _wordpiece(texts, size, lowercase, strip)
    else:
        trained = _sentencepiece(texts, kind, size, lowercase, strip)
    with files.new_folder(output) as folder:
        trained.save(folder)


def _wordpiece(texts: Iterable[str], size: int, lowercase: bool, strip: bool) -> Tokenizer:
    """Trains with the `tokenizers` library.

    Its trainer numbers characters in the order of a hash map, and numbers break ties between
    merges. Given as special tokens, sorted, the characters have fixed numbers. What comes out is
    only a list of entries; nothing but the five special tokens is special in the tokenizer.
    """
    blank = wordpiece.definition(_SPECIAL, _NAMES["unk"], lowercase, strip)
    backend = tokenizer.backend(blank, _NAMES)
    forms = functools.cache(functools.partial(alphabet.forms, backend=backend))
    counts = _count(texts, backend.normalizer.normalize_str)
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
    backend.train_from_iterator(texts, trainer)
    ids = backend.get_vocab(with_added_tokens=False)
    trained = sorted(ids, key=ids.__getitem__)
    if len(trained) < size:  # nothing left to merge: rarer characters fill the rest
        trained += [e for c in alphabet.ranked(counts) for e in forms(c) if e not in ids]
        if len(trained) < size:
            raise _too_small(size, len(trained))
        trained = trained[:size]
    return Tokenizer(wordpiece.definition(trained, _NAMES["unk"], lowercase, strip), _NAMES)


def _count(texts: Iterable[str], normalize: Callable[[str], str]) -> dict[str, int]:
    counts = alphabet.CharacterCounts()
    for text in texts:
        counts.add(text)
    return counts.normalized(normalize)


def _sentencepiece(
    texts: Iterable[str], kind: str, size: int, lowercase: bool, strip: bool
) -> Tokenizer:
    import sentencepiece

    normalize = functools.partial(rules.normalize, lowercase=lowercase, strip=strip)
    model = io.BytesIO()
    options: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": size,
        "character_coverage": alphabet.COVERAGE,
        "required_chars": "".join(alphabet.choose(_count(texts, normalize), size)),
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
    with contextlib.ExitStack() as stack:
        if strip:
            table = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".tsv"))
            table.write(rules.stripping_table(lowercase))
            table.flush()
            options["normalization_rule_tsv"] = table.name
        else:
            options["normalization_rule_name"] = rules.built_in(lowercase)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(texts), model_writer=model, **options
            )
        except RuntimeError as error:
            raise _refused(size, str(error)) from None
    proto = spm.parse("the trained model", model.getvalue())
    # The name of a temporary file would make the bytes differ.
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    for piece in proto.pieces:
        piece.score = round(piece.score * _SCORE_STEPS) / _SCORE_STEPS
    return tokenizer.from_model(
        "the trained model", proto, proto.SerializeToString(deterministic=True)
    )


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


def _refused(size: int, message: str) -> UserError:
    """SentencePiece's refusal in our words."""
    if at := re.search(r"<= (\d+)", message):
        return _too_small(size, int(at[1]))
    if at := re.search(r"(\d+) vs (\d+)", message):
        return UserError(
            f"--size {size} is too small: the corpus has {at[2]} characters and special tokens "
            f"that each need an entry; give --size {int(at[2]) + 1} or more"
        )
    return UserError(f"SentencePiece could not train on this corpus: {message}")


def _too_small(size: int, reachable: int) -> UserError:
    return UserError(
        f"the corpus is too small for --size {size}: it allows {reachable}; give --size "
        f"{reachable} or less, or more text"
    )
