"""WordPiece: the vocabulary file, and BERT's tokenizer as a `tokenizers` definition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.spec import UserError

# Longer words become [UNK]: the limit of the `tokenizers` library and of Hugging Face's fast
# tokenizers. The original ELECTRA allowed 200; words of 101 to 200 characters differ.
MAX_WORD = 100
PREFIX = "##"
# What the library takes for white space at the end of a line of a vocabulary.
_WHITE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)


def read_vocab(path: str | Path, trim: bool = True) -> list[str]:
    """The lines of a `vocab.txt`, each a token whose id is the line's number, from 0.

    As transformers reads it: with `trim` white space at the end of a line is no part of the token, an
    empty line keeps its id, and of a token that occurs twice the last line is its id. Empty lines at
    the end are left out. Raises UserError for bytes that are not UTF-8 text.
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
    lines = [line.rstrip(_WHITE) if trim else line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def definition(
    tokens: Sequence[str] | Mapping[str, int],
    unk: str,
    lowercase: bool,
    strip_accents: bool,
    chinese_chars: bool = True,
    clean_text: bool = True,
) -> dict[str, Any]:
    """The `tokenizer.json` of BERT's tokenizer (without specials and template).

    `tokens` are the entries in the order of their ids, or token -> id.
    """
    if not isinstance(tokens, Mapping):
        tokens = {token: number for number, token in enumerate(tokens)}
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
            "vocab": dict(tokens),
        },
    }


class Rules(NamedTuple):
    """BERT's options of case, accents, ideographs and unusual characters; `strip_accents` None: as case."""

    lowercase: bool = True
    strip_accents: bool | None = None
    chinese_chars: bool = True
    clean_text: bool = True

    def but(self, lowercase: bool | None, strip_accents: bool | None) -> "Rules":
        """The rules with what was asked for in their place; accents follow a case that was asked for."""
        if lowercase is not None:
            return self._replace(lowercase=lowercase, strip_accents=strip_accents)
        return self if strip_accents is None else self._replace(strip_accents=strip_accents)

    def definition(self, tokens: Sequence[str] | Mapping[str, int], unk: str) -> dict[str, Any]:
        """See `definition`."""
        strip = self.lowercase if self.strip_accents is None else self.strip_accents
        return definition(tokens, unk, self.lowercase, strip, self.chinese_chars, self.clean_text)


def said_rules(said: Mapping[str, Any]) -> Rules:
    """The rules in a `tokenizer_config.json`, as transformers' BERT classes take them."""
    strip = said.get("strip_accents")
    return Rules(
        bool(said.get("do_lower_case", True)),
        None if strip is None else bool(strip),
        bool(said.get("tokenize_chinese_chars", True)),
    )


def own_rules(where: str, found: Mapping[str, Any]) -> Rules:
    """The rules in a WordPiece `tokenizer.json`. Raises UserError when they are not BERT's."""
    normalizer, splitter = found.get("normalizer") or {}, found.get("pre_tokenizer") or {}
    kinds = normalizer.get("type"), splitter.get("type")
    if kinds != ("BertNormalizer", "BertPreTokenizer"):
        raise UserError(
            f"{where}: WordPiece with normalizer {kinds[0]} and pre-tokenizer {kinds[1]}; expected "
            "BertNormalizer and BertPreTokenizer"
        )
    strip = normalizer.get("strip_accents")
    return Rules(
        bool(normalizer.get("lowercase")),
        None if strip is None else bool(strip),
        bool(normalizer.get("handle_chinese_chars")),
        bool(normalizer.get("clean_text")),
    )


def check_model(where: str, model: Mapping[str, Any]) -> None:
    """Raises UserError when a WordPiece model of a `tokenizer.json` is not like BERT's."""
    prefix, longest = model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word")
    if (prefix, longest) != (PREFIX, MAX_WORD):
        raise UserError(
            f"{where}: WordPiece with prefix {prefix!r} and words of at most {longest} characters; "
            f"expected {PREFIX!r} and {MAX_WORD}"
        )
