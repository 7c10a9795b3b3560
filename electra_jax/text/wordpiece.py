"""WordPiece: the vocabulary file, and BERT's tokenizer as a `tokenizers` definition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.spec import UserError
from electra_jax.text import rules

# Longer words become [UNK]: the limit of the `tokenizers` library and of Hugging Face's fast
# tokenizers. The original ELECTRA allowed 200; words of 101 to 200 characters differ.
MAX_WORD = 100
# The most that may be asked for: the library's time grows with the cube of a word's length, to several
# seconds for one word of this many characters.
MOST_WORD = 5000
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
    """BERT's options of case, accents, ideographs and unusual characters; `strip_accents` None: as case.

    Before them come the rules that BERT has not: `latin_accents`, accents vanish in Latin, Greek and
    Cyrillic alone (see text/rules.py; `strip_accents` is False then), and `dotted`, the small letters of
    I and \u0130 are the dotless and the dotted i. Words longer than `max_word` characters are unknown.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    chinese_chars: bool = True
    clean_text: bool = True
    latin_accents: bool = False
    dotted: bool = False
    max_word: int = MAX_WORD

    @property
    def are_berts(self) -> bool:
        """Whether transformers' BERT classes, which go by their options alone, have the same rules."""
        return not (self.latin_accents or self.dotted) and self.max_word == MAX_WORD

    def but(self, lowercase: bool | None, strip_accents: bool | None) -> "Rules":
        """The rules with what was asked for in their place; accents follow a case that was asked for."""
        if lowercase is not None:
            dotted = self.dotted and lowercase
            return self._replace(
                lowercase=lowercase, strip_accents=strip_accents, latin_accents=False, dotted=dotted
            )
        if strip_accents is None:
            return self
        return self._replace(strip_accents=strip_accents, latin_accents=False)

    def definition(self, tokens: Sequence[str] | Mapping[str, int], unk: str) -> dict[str, Any]:
        """See `definition`."""
        strip = self.lowercase if self.strip_accents is None else self.strip_accents
        found = definition(tokens, unk, self.lowercase, strip, self.chinese_chars, self.clean_text)
        found["model"]["max_input_chars_per_word"] = self.max_word
        before = rules.steps("strip" if self.latin_accents else "keep", self.dotted)
        if before:
            all_steps = [*before, found["normalizer"]]
            found["normalizer"] = {"type": "Sequence", "normalizers": all_steps}
        return found


def for_text(wanted: rules.Rules, max_word: int) -> Rules:
    """WordPiece's rules of a vocabulary that we train."""
    return Rules(
        lowercase=wanted.lowercase,
        strip_accents=wanted.accents == "bert",
        latin_accents=wanted.accents == "strip",
        dotted=wanted.dotted,
        max_word=max_word,
    )


def said_rules(said: Mapping[str, Any]) -> Rules:
    """The rules in a `tokenizer_config.json`, as transformers' BERT classes take them."""
    strip = said.get("strip_accents")
    return Rules(
        bool(said.get("do_lower_case", True)),
        None if strip is None else bool(strip),
        bool(said.get("tokenize_chinese_chars", True)),
    )


def own_rules(where: str, found: Mapping[str, Any]) -> Rules:
    """The rules in a WordPiece `tokenizer.json`. Raises UserError when they are neither BERT's nor ours."""
    normalizer, splitter = found.get("normalizer") or {}, found.get("pre_tokenizer") or {}
    steps = _steps(normalizer)
    own = rules.read_steps(steps[:-1])
    kinds = steps[-1].get("type"), splitter.get("type")
    if kinds != ("BertNormalizer", "BertPreTokenizer") or own is None:
        raise UserError(
            f"{where}: WordPiece with normalizer {normalizer.get('type')} and pre-tokenizer "
            f"{kinds[1]}; expected BertNormalizer and BertPreTokenizer"
        )
    accents, dotted = own
    berts = steps[-1]
    strip = berts.get("strip_accents")
    return Rules(
        bool(berts.get("lowercase")),
        None if strip is None else bool(strip),
        bool(berts.get("handle_chinese_chars")),
        bool(berts.get("clean_text")),
        accents == "strip",
        dotted,
        found["model"]["max_input_chars_per_word"],
    )


def but(found: Mapping[str, Any], unk: str, dotted: bool, max_word: int | None) -> dict[str, Any]:
    """A definition with the dotless i, if asked for, and another longest word, if one is given."""
    own = own_rules("the tokenizer", found)
    own = own._replace(
        dotted=own.dotted or (dotted and own.lowercase), max_word=max_word or own.max_word
    )
    return {**found, **own.definition(found["model"]["vocab"], unk)}


def check_max_word(characters: int | None) -> None:
    """Raises UserError for a longest word that is not 1 to MOST_WORD characters (None is all right)."""
    if characters is not None and not 1 <= characters <= MOST_WORD:
        raise UserError(
            f"--max-word {characters} is not 1 to {MOST_WORD:,}; for longer words train a vocabulary "
            "of --kind unigram or bpe, which have no limit"
        )


def _steps(normalizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    in_turn = normalizer.get("type") == "Sequence" and normalizer.get("normalizers")
    return in_turn or [normalizer]


def check_model(where: str, model: Mapping[str, Any]) -> None:
    """Raises UserError when a WordPiece model of a `tokenizer.json` is not like BERT's."""
    prefix, longest = model.get("continuing_subword_prefix"), model.get("max_input_chars_per_word")
    if prefix != PREFIX or not isinstance(longest, int) or not 1 <= longest < 2**31:
        raise UserError(
            f"{where}: WordPiece with prefix {prefix!r} and words of at most {longest} characters; "
            f"expected {PREFIX!r} and a number of at least 1"
        )
