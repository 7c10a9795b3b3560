"""Tokenizer folders: the files transformers reads, which are also all that we need."""

import itertools
import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.spec import UserError
from electra_jax.text import added, byte_level, classes, japanese, special, spm, wordpiece

DEFINITION = "tokenizer.json"
_CONFIG, _MAP, _VOCAB, _SPIECE, _MODEL = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "spiece.model",
    "config.json",
)
_ADD_LINES = "add it as a line of its own (at the end, so that the other ids stay)"
_ADD_TOKENS = "add it with transformers' add_special_tokens"

Found = tuple[dict[str, Any], dict[str, str], bytes | None]  # definition, names, SentencePiece


def ids(definition: Mapping[str, Any]) -> dict[str, int]:
    """token -> id of all entries, added tokens included.

    Ids may lack an entry, as where a token stands twice in the file of a vocabulary. Raises UserError
    when two entries have one id, or when more ids lack an entry than have one.
    """
    vocab = definition["model"]["vocab"]
    try:
        found = dict(vocab) if isinstance(vocab, dict) else {t: i for i, (t, _) in enumerate(vocab)}
        for token in definition.get("added_tokens") or ():
            found[token["content"]] = operator.index(token["id"])
        ordered = sorted(found, key=lambda token: operator.index(found[token]))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"the vocabulary is damaged ({error}); expected an id a token") from None
    for before, after in itertools.pairwise(ordered):
        if found[before] == found[after]:
            raise UserError(
                f"the vocabulary has {before!r} and {after!r} at one id, {found[after]}"
            )
    if ordered and (found[ordered[0]] < 0 or found[ordered[-1]] >= 2 * len(ordered)):
        raise UserError(
            f"the vocabulary's {len(ordered)} entries have ids {found[ordered[0]]} to "
            f"{found[ordered[-1]]}; expected 0 to {len(ordered) - 1}"
        )
    return found


def tokens(definition: Mapping[str, Any]) -> list[str]:
    """All entries of a definition in the order of their ids, "" for an id without one."""
    return _in_order(ids(definition))


def _in_order(numbers: Mapping[str, int]) -> list[str]:
    entries = [""] * (max(numbers.values(), default=-1) + 1)
    for token, number in numbers.items():
        entries[number] = token
    return entries


def from_vocab(
    path: Path,
    said: Mapping[str, Any],
    lowercase: bool | None,
    strip_accents: bool | None,
    entries: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Definition and names of a `vocab.txt`.

    `said` is its `tokenizer_config.json`, `entries` its `added_tokens.json`; or empty.
    """
    words = said.get("tokenizer_class") == japanese.CLASS
    lines = wordpiece.read_vocab(path, trim=not words)
    vocab = {token: number for number, token in enumerate(lines)}
    listed = added.listed(str(path.parent), {}, entries or {}, said)
    full = vocab | {token["content"]: token["id"] for token in listed}
    names = special.find(f"vocabulary {path}", full, _ADD_LINES, _said_names(said))
    vocab.setdefault(names["unk"], full[names["unk"]])
    kept = added.beyond(listed, vocab, names)
    if words:
        if strip_accents:
            raise UserError(
                f"{path}: a {japanese.CLASS} does not strip accents; leave the flag out"
            )
        options = japanese.options(str(path.parent), said)
        if lowercase is not None:
            options = options._replace(lowercase=lowercase)
        return japanese.definition(vocab, names["unk"], options, kept), names
    rules = wordpiece.said_rules(said).but(lowercase, strip_accents)
    return _wordpiece(rules, vocab, names, kept), names


def _wordpiece(
    rules: wordpiece.Rules,
    vocab: Mapping[str, int],
    names: Mapping[str, str],
    kept: list[added.Added],
) -> dict[str, Any]:
    found = rules.definition(vocab, names["unk"])
    return {**found, "added_tokens": kept} if kept else found


def read(path: Path, lowercase: bool | None, strip_accents: bool | None) -> Found:
    """Reads our folder or one that transformers saved. Raises UserError for others."""
    said = {**_json(path / _MAP), **_json(path / _CONFIG)}
    kind = classes.name(path, said, _json(path / _MODEL))
    entries = _json(path / added.FILE)
    if (path / DEFINITION).is_file() and kind != japanese.CLASS:
        return _from_definition(path, said, entries, kind, lowercase, strip_accents)
    if (path / _VOCAB).is_file() and kind not in classes.SENTENCEPIECE:
        said["tokenizer_class"] = kind
        return (*from_vocab(path / _VOCAB, said, lowercase, strip_accents, entries), None)
    models = sorted(file for file in path.iterdir() if file.suffix in spm.SUFFIXES)
    if models:
        return (*_from_model(path, models[0], said, entries, kind), None)
    here = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    raise UserError(
        f"folder {path} is no tokenizer: it has neither {DEFINITION} nor {_VOCAB} (found: {here})"
    )


def write(
    path: Path,
    definition: Mapping[str, Any],
    names: Mapping[str, str],
    model_file: bytes | None,
    max_length: int | None,
    types: bool = True,
) -> None:
    """Writes the folder (see `Tokenizer.save`)."""
    with files.disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    numbers = ids(definition)
    map_ = {f"{role}_token": names[role] for role in special.NAMES}
    files.write_json(path / _MAP, map_)
    config: dict[str, Any] = {**map_, "model_input_names": _INPUTS if types else _UNTYPED}
    if max_length is not None:
        config["model_max_length"] = max_length
    words = definition.get("words")
    if words is None:  # transformers' class for those has no use for the file
        full = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            **definition,
            "added_tokens": _all_added(definition, names, numbers),
            "post_processor": _template(names, numbers),
        }
        files.write_text(path / DEFINITION, json.dumps(full, ensure_ascii=False) + "\n")
    if definition["model"]["type"] == "WordPiece":
        config |= _words_said(words) if words is not None else _rules_said(definition)
        vocab = definition["model"]["vocab"]
        files.write_text(path / _VOCAB, "".join(f"{token}\n" for token in _in_order(vocab)))
        more = {token: number for token, number in numbers.items() if token not in vocab}
        if more:
            files.write_json(path / added.FILE, more)
        else:  # of another tokenizer that was saved here
            (path / added.FILE).unlink(missing_ok=True)
    else:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is
        if model_file is not None:
            files.write_bytes(path / _SPIECE, model_file)
    files.write_json(path / _CONFIG, config)


def _all_added(
    definition: Mapping[str, Any], names: Mapping[str, str], numbers: Mapping[str, int]
) -> list[added.Added]:
    """The added tokens of a `tokenizer.json`: the special ones of the five roles, and the others."""
    ours = [added.token(numbers[names[role]], names[role], special=True) for role in special.NAMES]
    if byte_level.is_like(
        definition
    ):  # there [MASK] takes the blank before it, which a word would have
        own = {token["content"]: token for token in definition.get("added_tokens") or ()}
        ours = [own.get(token["content"], token) for token in ours]
    taken = {token["content"] for token in ours}
    others = [t for t in definition.get("added_tokens") or () if t["content"] not in taken]
    return sorted((*ours, *others), key=lambda token: token["id"])


def _rules_said(definition: Mapping[str, Any]) -> dict[str, Any]:
    """BERT's rules as `tokenizer_config.json` says them. Others are no class's: `tokenizer.json` alone has them."""
    rules = wordpiece.own_rules("the tokenizer", definition)
    if not rules.are_berts:
        return {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {
        "tokenizer_class": "ElectraTokenizer" if rules.clean_text else "PreTrainedTokenizerFast",
        "do_lower_case": rules.lowercase,
        "strip_accents": rules.strip_accents,
        "tokenize_chinese_chars": rules.chinese_chars,
    }


def _words_said(words: Mapping[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": japanese.CLASS, **words}


_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
_UNTYPED = ["input_ids", "attention_mask"]


def _template(names: Mapping[str, str], ids: Mapping[str, int]) -> dict[str, Any]:
    """[CLS] A [SEP] and [CLS] A [SEP] B [SEP], types 0 and 1."""
    cls, sep = names["cls"], names["sep"]

    def mark(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def sequence(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [mark(cls, 0), sequence("A", 0), mark(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), mark(sep, 1)],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (cls, sep)},
    }


def _from_model(
    path: Path,
    model: Path,
    said: Mapping[str, Any],
    entries: Mapping[str, Any],
    kind: str | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Definition and names of a folder with a SentencePiece model and no `tokenizer.json`."""
    if kind is None or kind in classes.AS_SAVED:
        raise UserError(
            f"folder {path} has a SentencePiece model but no {DEFINITION}, so nothing says how its "
            f"ids are used; give the model itself: {model}"
        )
    if kind not in classes.FROM_MODEL:
        where, to = json.dumps(str(path)), json.dumps(f"{path}-fast")
        raise UserError(
            f"folder {path} has a SentencePiece model but no {DEFINITION}, and is a {kind}, whose ids "
            f"are not read from a model here; where transformers is installed, write {to} and give "
            "that: python -c 'from transformers import AutoTokenizer as T; "
            f"T.from_pretrained({where}).save_pretrained({to})'"
        )
    proto = spm.parse(model, model.read_bytes())
    more = {token["content"] for token in added.listed(str(path), {}, entries, said)}
    found = classes.from_model(kind, said, proto, more)
    return _sentencepiece(path, str(model), found, said, entries, kind)


def _from_definition(
    path: Path,
    said: Mapping[str, Any],
    entries: Mapping[str, Any],
    kind: str | None,
    lowercase: bool | None,
    strip_accents: bool | None,
) -> Found:
    found = _json(path / DEFINITION)
    where = os.path.join(path, DEFINITION)
    model = found.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise UserError(f"{where} has no model with a vocabulary; it is no tokenizer definition")
    model["type"] = model.get("type") or (
        "WordPiece" if "continuing_subword_prefix" in model else "?"
    )
    _check_kind(where, found, kind)
    if model["type"] == "WordPiece":
        found["added_tokens"] = added.listed(str(path), found, entries, said)
        names = special.find(where, ids(found), _ADD_TOKENS, _said_names(said))
        if kind in classes.BERT:
            rules = wordpiece.said_rules(said)
        else:
            wordpiece.check_model(where, model)
            rules = wordpiece.own_rules(where, found)
        vocab = {**model["vocab"]}
        vocab.setdefault(names["unk"], ids(found)[names["unk"]])
        kept = added.beyond(found["added_tokens"], vocab, names)
        return _wordpiece(rules.but(lowercase, strip_accents), vocab, names, kept), names, None
    spiece = path / _SPIECE
    data = spiece.read_bytes() if spiece.is_file() else None
    return (*_sentencepiece(path, where, found, said, entries, kind), data)


def _sentencepiece(
    path: Path,
    where: str,
    found: dict[str, Any],
    said: Mapping[str, Any],
    entries: Mapping[str, Any],
    kind: str | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    if kind in classes.SENTENCEPIECE:
        found = {**found, **classes.sentencepiece(where, kind, said, found)}
    found["added_tokens"] = added.listed(str(path), found, entries, said)
    names = special.find(where, ids(found), _ADD_TOKENS, _said_names(said))
    roles = set(names.values())
    for token in found["added_tokens"]:
        token["special"] = token["special"] or token["content"] in roles
    keep = ("added_tokens", "normalizer", "pre_tokenizer", "decoder", "model")
    return {part: found.get(part) for part in keep}, names


def _check_kind(where: str, found: dict[str, Any], kind: str | None) -> None:
    """Raises UserError for a model that is not read here, or is not one of the folder's class."""
    model = found["model"]["type"]
    like = spm.is_like(found) or byte_level.is_like(found)
    if model != "WordPiece" and not (model in ("Unigram", "BPE") and like):
        what = "byte-level BPE" if model == "BPE" else model
        raise UserError(
            f"{where} is a {what} tokenizer; expected WordPiece, SentencePiece unigram or BPE, or byte-level BPE with "
            "add_prefix_space=false"
        )
    if kind in (classes.SENTENCEPIECE if model == "WordPiece" else classes.BERT):
        raise UserError(
            f"{where} is a {model} tokenizer, but the folder says that it is a {kind}; correct "
            "tokenizer_class in tokenizer_config.json (PreTrainedTokenizerFast takes the file as it is)"
        )


def _said_names(said: Mapping[str, Any]) -> dict[str, str]:
    names = {}
    for role in special.NAMES:
        token = said.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            names[role] = token
    return names


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty when there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}; expected a JSON object")
    return found
