"""The words of transformers' BertJapaneseTokenizer: MeCab's, cut further by WordPiece or into characters.

The library looks up the words found here one by one; it splits and normalises nothing itself.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from electra_jax.spec import UserError
from electra_jax.text import mecab, wordpiece

CLASS = "BertJapaneseTokenizer"
# Before an entry that text cannot spell by itself (a special or an added token), which makes it no
# word: words hold no blank.
APART = " "

Place = tuple[int, int]  # from where to where a character of a word stands in the text


class Options(NamedTuple):
    """What a tokenizer_config.json says of the words."""

    segmenter: mecab.Segmenter | None  # None: the text is one word
    characters: bool = False  # every character is a piece; else WordPiece
    lowercase: bool = False
    never_split: tuple[str, ...] = ()  # words that keep their case

    def described(self) -> dict[str, Any]:
        """The entries of tokenizer_config.json."""
        said: dict[str, Any] = {
            "do_lower_case": self.lowercase,
            "do_word_tokenize": self.segmenter is not None,
            "word_tokenizer_type": "mecab",
            "subword_tokenizer_type": "character" if self.characters else "wordpiece",
            "never_split": list(self.never_split) or None,
        }
        if self.segmenter is not None:
            said["mecab_kwargs"] = self.segmenter.described()
        return said


def options(where: str, said: Mapping[str, Any]) -> Options:
    """The options in `said`, a tokenizer_config.json of the class. Raises UserError for kinds we do not know."""
    kind = said.get("word_tokenizer_type", "basic")
    subwords = said.get("subword_tokenizer_type", "wordpiece")
    words = said.get("do_word_tokenize", True)
    if words and kind != "mecab":
        raise UserError(
            f"{where}: {CLASS} with word_tokenizer_type {kind!r}; the one supported is 'mecab'"
        )
    if subwords not in ("wordpiece", "character") or not said.get("do_subword_tokenize", True):
        raise UserError(
            f"{where}: {CLASS} with subword_tokenizer_type {subwords!r} and do_subword_tokenize "
            f"{said.get('do_subword_tokenize', True)}; those supported are 'wordpiece' and 'character'"
        )
    keywords = said.get("mecab_kwargs") or {}
    never = said.get("never_split") or ()
    if not isinstance(keywords, dict) or not all(isinstance(word, str) for word in never):
        raise UserError(f"{where}: mecab_kwargs {keywords!r} and never_split {never!r} are damaged")
    return Options(
        mecab.Segmenter.from_description(keywords) if words else None,
        subwords == "character",
        bool(said.get("do_lower_case", False)),
        tuple(never),
    )


def definition(
    vocab: Sequence[str] | Mapping[str, int],
    unk: str,
    words: Options,
    added: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The definition of a Tokenizer over these entries; `added` as in a tokenizer.json."""
    found = wordpiece.definition(vocab, unk, lowercase=False, strip_accents=False)
    found |= {"normalizer": None, "pre_tokenizer": None, "words": words.described()}
    return {**found, **({"added_tokens": list(added)} if added else {})}


def over(found: Mapping[str, Any], unk: str, words: Options) -> dict[str, Any]:
    """A definition of WordPiece with these words in place of BERT's."""
    return definition(found["model"]["vocab"], unk, words, found.get("added_tokens") or ())


class Words:
    """Splits texts into what the library looks up, each by itself."""

    def __init__(self, options: Options, added: Sequence[Mapping[str, Any]]) -> None:
        self.options = options
        for token in added:
            flags = [name for name in ("lstrip", "rstrip", "single_word") if token.get(name)]
            if flags:
                raise UserError(
                    f"the added token {token['content']!r} of a {CLASS} has {' and '.join(flags)}; "
                    "expected a token without"
                )
        contents = sorted((token["content"] for token in added), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, contents))) if contents else None

    def __call__(self, text: str) -> list[str]:
        """The words of a text, in order."""
        found: list[str] = []
        for stretch, is_added in self._stretches(text):
            found += [APART + stretch] if is_added else self._words(stretch)
        return found

    def placed(self, text: str) -> list[tuple[str, list[Place]]]:
        """The words of a text, each with where its characters stand in the text."""
        found: list[tuple[str, list[Place]]] = []
        start = 0
        for stretch, is_added in self._stretches(text):
            if is_added:
                whole = (start, start + len(stretch))
                found.append((APART + stretch, [whole] * (len(stretch) + len(APART))))
            else:
                found += self._placed(stretch, start)
            start += len(stretch)
        return found

    def _stretches(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in pieces, and which of them are added tokens."""
        start = 0
        for match in self._added.finditer(text) if self._added else ():
            if match.start() > start:
                yield text[start : match.start()], False
            yield match[0], True
            start = match.end()
        if start < len(text):
            yield text[start:], False

    def _words(self, text: str) -> list[str]:
        said = self.options
        words = said.segmenter(text) if said.segmenter is not None else [text]
        if said.lowercase and said.segmenter is not None:
            words = [word if word in said.never_split else word.lower() for word in words]
        if said.characters:
            return [char for word in words for char in unicodedata.normalize("NFKC", word)]
        return [part for word in words for part in word.split()]

    def _placed(self, text: str, start: int) -> Iterator[tuple[str, list[Place]]]:
        said = self.options
        places = [(at, at + 1) for at in range(start, start + len(text))]
        words = [text]
        if said.segmenter is not None:
            if said.segmenter.normalize:
                places = _normalized(text, places)
            text = said.segmenter.prepared(text)
            words = said.segmenter.words(text)
        end = 0
        for word in words:
            begin = text.index(word, end)
            end = begin + len(word)
            here = places[begin:end]
            if said.lowercase and said.segmenter is not None and word not in said.never_split:
                lower = word.lower()
                if len(lower) != len(word):
                    here = [p for c, p in zip(word, here, strict=True) for _ in c.lower()]
                word = lower
            if said.characters:
                chars = unicodedata.normalize("NFKC", word)
                here = _normalized(word, here)
                yield from ((char, [place]) for char, place in zip(chars, here, strict=True))
            else:
                yield from ((m[0], here[m.start() : m.end()]) for m in re.finditer(r"\S+", word))


def _normalized(text: str, places: list[Place]) -> list[Place]:
    """The places of the characters of a text's NFKC, from those of the text's own.

    The text is taken in the shortest stretches whose normal forms, one after another, are that of
    the whole; each character of a normal form stands for its stretch.
    """
    if unicodedata.is_normalized("NFKC", text):
        return places
    found: list[Place] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or _apart(text[start:end], text[end]):
            form = unicodedata.normalize("NFKC", text[start:end])
            found += [(places[start][0], places[end - 1][1])] * len(form)
            start = end
    return found


def _apart(before: str, char: str) -> bool:
    """Whether a character begins a stretch of its own after `before`."""
    if unicodedata.combining(unicodedata.normalize("NFKD", char)[0]):
        return False
    normalize = unicodedata.normalize
    return normalize("NFKC", before + char) == normalize("NFKC", before) + normalize("NFKC", char)
