"""One Tokenizer over WordPiece, SentencePiece and Japanese words: text to ids, and a folder that says all of it.

Four ways to encode, all giving the same ids without special tokens:

    encode(text) -> list[int]
    encode_batch(texts) -> list[list[int]]      the `tokenizers` library, all the cores it may use
    encode_offsets(texts) -> list[(ids, characters)]  the same, with where each token stands
    encode_flat(texts) -> (ids, lengths)        numpy, one core, several times faster by a cache of
                                                words, where the rules allow one (see borders.py)

The name of a special token in the text itself (a literal "[MASK]" in a corpus) is ordinary text
here, as in the original ELECTRA: raw text never gives a special id, except [UNK] for what the
vocabulary cannot spell. Hugging Face's tokenizers do map such names to the special ids (that is
how one writes "Paris is [MASK]." for a fill-mask pipeline), also when they load a folder saved
here; on all other text the ids are identical.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import tokenizers

from electra_jax.spec import UserError
from electra_jax.text import (
    added,
    borders,
    byte_level,
    cache,
    folder,
    japanese,
    mecab,
    rules,
    special,
    spm,
    wordpiece,
)
from electra_jax.text.special import SpecialIds

_TOGETHER = 100  # words given to the library as one text; a call a word costs twice as much
_KINDS = {"WordPiece": "wordpiece", "Unigram": "unigram", "BPE": "bpe"}


class Tokenizer:
    """A vocabulary with its rules. Picklable; made by `load`.

    `definition` is what goes to `tokenizer.json`, `names` the special tokens by role, `model_file`
    the bytes of the SentencePiece model it came from, if it came from one.
    """

    def __init__(
        self, definition: dict[str, Any], names: Mapping[str, str], model_file: bytes | None = None
    ):
        self.definition, self.names, self.model_file = definition, dict(names), model_file
        self.kind: str = _KINDS[definition["model"]["type"]]
        self._tokens = folder.tokens(definition)
        self._ids = folder.ids(definition)
        self.size = len(self._tokens)
        self.special = SpecialIds(**{role: self._ids[token] for role, token in names.items()})
        self._backend = backend(definition, names)
        self._words = _words(definition)
        self._flat = self._new_cache()
        self.starts_V = self._word_starts()

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.definition, self.names, self.model_file)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of everything that decides ids; the same on every machine."""
        said = [self.definition.get(part) for part in ("normalizer", "pre_tokenizer", "model")]
        said += [_ordinary(self.definition), self.special]
        if "words" in self.definition:
            said.append(self.definition["words"])
        text = json.dumps(said, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def lowercase(self) -> bool:
        """Whether case is removed before the vocabulary is looked up."""
        if self._words is not None:
            return self._words.options.lowercase
        return self.normalize("A") != "A"

    @property
    def strip_accents(self) -> bool:
        """Whether accents are removed before the vocabulary is looked up."""
        return self.normalize("\u00e9") == "e"

    @property
    def cuts_words(self) -> bool:
        """Whether a segmenter finds the words (Japanese); an entry with ## goes on in one."""
        return self._words is not None

    @property
    def is_byte_level(self) -> bool:
        """Whether entries spell bytes, and the first word of a text has no mark that it begins one."""
        return byte_level.is_like(self.definition)

    @property
    def max_word(self) -> int | None:
        """The most characters of a word that can be looked up; longer ones are unknown. None: no limit."""
        limit = self.definition["model"].get("max_input_chars_per_word")
        return None if self.kind != "wordpiece" else int(limit)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        if self._words is not None:
            return self.encode_batch([text])[0]
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, by the library's threads."""
        words = self._words
        found = self._backend.encode_batch_fast(
            list(texts) if words is None else [words(text) for text in texts],
            is_pretokenized=words is not None,
            add_special_tokens=False,
        )
        return [encoding.ids for encoding in found]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 [sum of lengths], lengths int64 [texts]) of all texts, one after the other."""
        return self._flat(texts)

    def encode_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids int32 [n], characters int32 [n, 2]) of each text: token i is text[start:stop].

        The space that a SentencePiece token stands for is not part of its characters, so that a
        stretch of tokens begins and ends with what can be seen. The ids are those of `encode`.
        """
        if self._words is not None:
            return [self._placed(self._words.placed(text)) for text in texts]
        found = []
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            places = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            if self.kind != "wordpiece":
                for token, (start, stop) in enumerate(places):
                    while start < stop and text[start].isspace():
                        start += 1
                    places[token, 0] = start
            found.append((np.array(encoding.ids, np.int32), places))
        return found

    def _placed(
        self, words: Sequence[tuple[str, list[japanese.Place]]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and characters of words of which each character has its place in the text."""
        found = self._backend.encode(
            [word for word, _ in words], is_pretokenized=True, add_special_tokens=False
        )
        places = [
            (words[word][1][start][0], words[word][1][stop - 1][1])
            for word, (start, stop) in zip(
                cast(list[int], found.word_ids), found.offsets, strict=True
            )
        ]
        return np.array(found.ids, np.int32), np.array(places, np.int32).reshape(-1, 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text; special tokens are left out, lost case and spaces do not come back."""
        hidden = set(self.special) - {self.special.unk}
        return self._backend.decode([int(i) for i in ids if int(i) not in hidden])

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's entries for `ids`."""
        return [self._tokens[int(i)] for i in ids]

    def id_of(self, token: str) -> int:
        """The id of a vocabulary entry; KeyError when it is none."""
        return self._ids[token]

    def save(self, path: str | Path, max_length: int | None = None, *, types: bool = True) -> None:
        """Writes the folder that `load` and transformers' AutoTokenizer both read.

        Files in it under the same names are replaced. `max_length` is the longest sequence the
        model takes, for transformers to truncate to; `types` whether it takes types of tokens.
        """
        folder.write(Path(path), self.definition, self.names, self.model_file, max_length, types)

    def _new_cache(self) -> Callable[[Sequence[str]], cache.Flat]:
        """`_encode_whole`, behind a cache of words for every kind of border there is."""
        if self._words is not None:
            return cache.WordCache(self._encode_words, self._words).encode
        found = borders.find(self.definition, self.normalize)
        encode = self._encode_words if found.cuts else self._encode_whole
        for cut in reversed(found.cuts):
            encode = cache.WordCache(encode, cut, found.joins, self._encode_whole).encode
        return encode

    def _encode_whole(self, texts: Sequence[str]) -> cache.Flat:
        """Flat ids without a cache."""
        found = self.encode_batch(texts)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = itertools.chain.from_iterable(found)
        return np.fromiter(ids, np.int32, int(lengths.sum())), lengths

    def _encode_words(self, words: Sequence[str]) -> cache.Flat:
        """Flat ids of texts that hold no space."""
        groups = [words[at : at + _TOGETHER] for at in range(0, len(words), _TOGETHER)]
        ids, lengths = [], []
        for group, found in zip(
            groups,
            self._backend.encode_batch(groups, is_pretokenized=True, add_special_tokens=False),
            strict=True,
        ):
            ids.append(np.array(found.ids, np.int32))
            word_of_id = np.array(found.word_ids, np.int64)
            lengths.append(np.bincount(word_of_id, minlength=len(group)))
        return np.concatenate(ids), np.concatenate(lengths)

    def normalize(self, text: str) -> str:
        """The text as the vocabulary is looked up in it: case and accents as the rules say."""
        normalizer = self._backend.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def _word_starts(self) -> np.ndarray:
        """bool [size]: the entry begins a word; special tokens do."""
        if self.kind == "wordpiece":
            starts = [not token.startswith(wordpiece.PREFIX) for token in self._tokens]
        elif self.is_byte_level:
            starts = byte_level.starts(self._tokens, self.definition).tolist()
        else:
            starts = [token.startswith(spm.SPACE) for token in self._tokens]
        starts_V = np.array(starts, bool)
        starts_V[list(self.special)] = True
        return starts_V


def load(
    path: str | Path,
    lowercase: bool | None = None,
    strip_accents: bool | None = None,
    language: str | None = None,
    max_word: int | None = None,
    segmenter: mecab.Segmenter | None = None,
) -> Tokenizer:
    """Reads our folder, a Hugging Face folder, a `vocab.txt`, or a SentencePiece `.model`.

    `lowercase` and `strip_accents` None mean what the folder says, and uncased for a bare
    `vocab.txt`; `strip_accents` None beside a given `lowercase` means the same as `lowercase`, as
    in BERT. `language` "tr" or "az": a lower-cased I is the dotless i, and \u0130 the dotted one.
    `max_word`: longer words are unknown to WordPiece (None: as the folder says, 100 for a `vocab.txt`).
    `segmenter`: WordPiece gets its words, as in transformers' BertJapaneseTokenizer; a folder of that
    class keeps its own. A SentencePiece model carries its own rules, which these arguments cannot
    change. Raises UserError for what is missing, damaged, unsupported, or lacks a special token.
    """
    loaded = _load(Path(path), lowercase, strip_accents)
    if segmenter is not None:
        loaded = _segmented(loaded, segmenter, strip_accents)
    return loaded if (language, max_word) == (None, None) else _but(loaded, language, max_word)


def _load(path: Path, lowercase: bool | None, strip_accents: bool | None) -> Tokenizer:
    if not path.exists():
        raise UserError(
            f"tokenizer {path} does not exist; expected a folder written by electra-jax vocab or "
            "save_pretrained, a vocab.txt or a SentencePiece .model"
        )
    if path.is_dir() or path.name == folder.DEFINITION:
        found = folder.read(path if path.is_dir() else path.parent, lowercase, strip_accents)
    elif path.suffix in spm.SUFFIXES:
        model = path.read_bytes()
        made = from_model(path, spm.parse(path, model), model)
        return _with_own_rules(path, made, lowercase, strip_accents)
    else:
        spm.refuse_listing(path)
        found = (*folder.from_vocab(path, {}, lowercase, strip_accents), None)
    return _with_own_rules(path, Tokenizer(*found), lowercase, strip_accents)


def _segmented(
    loaded: Tokenizer, segmenter: mecab.Segmenter, strip_accents: bool | None
) -> Tokenizer:
    """The tokenizer with the segmenter's words in place of BERT's; case as it is, accents stay."""
    if loaded.cuts_words:
        return loaded
    if loaded.kind != "wordpiece" or strip_accents:
        what = "strip_accents" if loaded.kind == "wordpiece" else f"a {loaded.kind} tokenizer"
        raise UserError(f"--segmenter mecab is for WordPiece that keeps accents, not for {what}")
    words = japanese.Options(segmenter, lowercase=loaded.lowercase)
    return Tokenizer(japanese.over(loaded.definition, loaded.names["unk"], words), loaded.names)


def _but(loaded: Tokenizer, language: str | None, max_word: int | None) -> Tokenizer:
    """The tokenizer with these rules in place of its own."""
    rules.check_language(language)
    wordpiece.check_max_word(max_word)
    definition = loaded.definition
    if loaded.kind == "wordpiece" and "words" not in definition:
        changed = wordpiece.but(definition, loaded.names["unk"], language is not None, max_word)
        return Tokenizer(changed, loaded.names)
    what = "BertJapaneseTokenizer" if "words" in definition else "SentencePiece tokenizer"
    if max_word is not None:
        raise UserError(f"--max-word is for WordPiece; a {what} has its own; leave the flag out")
    if loaded.lowercase and loaded.normalize("I") != "\u0131":
        raise UserError(
            f"this {what} carries its own rules, without the dotless i of --language {language}; leave "
            f"the flag out, or train another with electra-jax vocab --language {language}"
        )
    return loaded


def from_model(where: str | Path, proto: Any, model: bytes) -> Tokenizer:
    """The tokenizer of a SentencePiece model, parsed and as it is saved; `where` names it in errors."""
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    names = special.find(f"SentencePiece model {where}", ids, spm.ADD_SPECIALS)
    return Tokenizer(spm.definition(proto), names, model)


def _with_own_rules(
    path: Path, tokenizer: Tokenizer, lowercase: bool | None, strip_accents: bool | None
) -> Tokenizer:
    """The tokenizer, if it is WordPiece or its model's own rules are those asked for."""
    asked = (
        ("lowercase", lowercase, tokenizer.lowercase),
        ("strip_accents", strip_accents, tokenizer.strip_accents),
    )
    for name, wanted, found in asked:
        if tokenizer.kind != "wordpiece" and wanted is not None and wanted != found:
            raise UserError(
                f"tokenizer {path} is a SentencePiece model whose own rules say {name}={found}; "
                f"{name}={wanted} was asked for. Leave the flag out, or train another vocabulary"
            )
    return tokenizer


def backend(definition: dict[str, Any], names: Mapping[str, str]) -> tokenizers.Tokenizer:
    """The library's tokenizer, in which no text spells a special token."""
    model = definition["model"]
    if "words" in definition:
        return _built(_word_by_word(definition, names))
    inner = {part: definition.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")}
    if model["type"] == "Unigram":
        # The library looks up every entry in the text. A special token gets a name with a space,
        # which no word has.
        hidden = set(names.values()) - {names["unk"]}
        hidden |= {t["content"] for t in definition.get("added_tokens") or () if t["special"]}
        vocab = [[f" {t}" if t in hidden else t, score] for t, score in model["vocab"]]
        vocab[model["unk_id"]][0] = f" {vocab[model['unk_id']][0]}"
        model = {**model, "vocab": vocab}
    kept = added.spelt(definition)
    built = _built({**inner, "model": model, "added_tokens": kept})
    for token in kept:
        if built.token_to_id(token["content"]) != token["id"]:
            raise UserError(
                f"the tokenizer's added token {token['content']!r} has the id {token['id']}, but "
                "transformers numbers added tokens one after another behind the vocabulary; "
                f"there it would be {built.token_to_id(token['content'])}"
            )
    return built


def _word_by_word(definition: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The parts of a library's tokenizer that looks up each word by itself."""
    apart = {*names.values(), *(t["content"] for t in definition.get("added_tokens") or ())}
    vocab = {
        f"{japanese.APART}{token}" if token in apart else token: number
        for token, number in folder.ids(definition).items()
    }
    unk = f"{japanese.APART}{names['unk']}"
    model = {**definition["model"], "vocab": vocab, "unk_token": unk}
    return {"model": model, "decoder": definition.get("decoder")}


def _built(parts: Mapping[str, Any]) -> tokenizers.Tokenizer:
    text = json.dumps({"version": "1.0", "added_tokens": [], **parts})
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 (the library raises nothing narrower)
        raise UserError(f"the tokenizer's definition is damaged: {error}") from None


def _ordinary(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that are not special: words that text may spell."""
    return [t for t in definition.get("added_tokens") or () if not t["special"]]


def _words(definition: Mapping[str, Any]) -> japanese.Words | None:
    """What splits text into words before the library sees it; None where the library does it all."""
    if "words" not in definition:
        return None
    said = japanese.options("the tokenizer", definition["words"])
    return japanese.Words(said, _ordinary(definition))
