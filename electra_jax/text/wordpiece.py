"""WordPiece: the vocabulary file, and BERT's tokenizer as a `tokenizers` definition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError

# Longer words become [UNK]: the limit of the `tokenizers` library and of Hugging Face's fast
# tokenizers. The original ELECTRA allowed 200; words of 101 to 200 characters differ.
MAX_WORD = 100
PREFIX = "##"


def read_vocab(path: str | Path) -> list[str]:
    """The tokens of a `vocab.txt`, in the order of their ids (a token a line).

    Raises UserError for bytes that are not UTF-8, an empty line before the last, or a token that
    occurs twice.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"vocabulary {path} is not UTF-8: byte {error.start} (line {line})"
        ) from None
    if "\0" in text:
        raise UserError(f"vocabulary {path} is not text: it holds NUL bytes")
    tokens = [token.removesuffix("\r") for token in text.removesuffix("\n").split("\n")]
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if not token:
            raise UserError(f"vocabulary {path}, line {number} is empty; expected a token a line")
        if token in seen:
            raise UserError(
                f"vocabulary {path}, line {number}: {token!r} is already on line {seen[token]}; "
                "remove one of them (the ids after it move up by one)"
            )
        seen[token] = number
    return tokens


def definition(
    tokens: Sequence[str],
    unk: str,
    lowercase: bool,
    strip_accents: bool,
    chinese_chars: bool = True,
    clean_text: bool = True,
) -> dict[str, Any]:
    """The `tokenizer.json` of BERT's tokenizer over `tokens` (without specials and template)."""
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": clean_text,
            "handle_chinese_chars": chinese_chars,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": MAX_WORD,
            "vocab": {token: number for number, token in enumerate(tokens)},
        },
    }


def canonical(
    where: str, found: Mapping[str, Any], unk: str, lowercase: bool | None, strip: bool | None
) -> dict[str, Any]:
    """Our definition with the vocabulary and options of a WordPiece `tokenizer.json`.

    `lowercase` and `strip`, when given, replace the file's. Raises UserError when the file's
    normaliser or word splitter is not BERT's.
    """
    normalizer, splitter = found.get("normalizer") or {}, found.get("pre_tokenizer") or {}
    model = found["model"]
    kinds = normalizer.get("type"), splitter.get("type")
    if kinds != ("BertNormalizer", "BertPreTokenizer"):
        raise UserError(
            f"{where}: WordPiece with normalizer {kinds[0]} and pre-tokenizer {kinds[1]}; expected "
            "BertNormalizer and BertPreTokenizer"
        )
    prefix, longest = model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word")
    if (prefix, longest) != (PREFIX, MAX_WORD):
        raise UserError(
            f"{where}: WordPiece with prefix {prefix!r} and words of at most {longest} characters; "
            f"expected {PREFIX!r} and {MAX_WORD}"
        )
    if lowercase is None:
        lowercase = bool(normalizer.get("lowercase"))
        strip = normalizer.get("strip_accents") if strip is None else strip
    return definition(
        sorted(model["vocab"], key=model["vocab"].__getitem__),
        unk,
        lowercase,
        lowercase if strip is None else strip,
        bool(normalizer.get("handle_chinese_chars")),
        bool(normalizer.get("clean_text")),
    )
