"""Tokenizer folders: the files transformers reads, which are also all that we need."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.spec import UserError
from electra_jax.text import special, spm, wordpiece

DEFINITION = "tokenizer.json"
_CONFIG, _MAP, _VOCAB, _SPIECE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "spiece.model",
)
_ADD_LINES = "add it as a line of its own (at the end, so that the other ids stay)"

Found = tuple[dict[str, Any], dict[str, str], bytes | None]  # definition, names, SentencePiece


def tokens(definition: Mapping[str, Any]) -> list[str]:
    """All entries of a definition in the order of their ids, added tokens included."""
    vocab = definition["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {t: i for i, (t, _) in enumerate(vocab)}
    for token in definition.get("added_tokens") or ():
        ids[token["content"]] = token["id"]
    ordered = sorted(ids, key=ids.__getitem__)
    wrong = next((t for number, t in enumerate(ordered) if ids[t] != number), None)
    if wrong is not None:
        raise UserError(
            f"the vocabulary's ids are not 0 to {len(ids) - 1}: near {wrong!r} (id {ids[wrong]}) "
            "one is missing or used twice"
        )
    return ordered


def from_vocab(
    path: Path, said: Mapping[str, Any], lowercase: bool | None, strip_accents: bool | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Definition and names of a `vocab.txt`; `said` is its `tokenizer_config.json`, or empty."""
    entries = wordpiece.read_vocab(path)
    ids = {token: number for number, token in enumerate(entries)}
    names = special.find(f"vocabulary {path}", ids, _ADD_LINES, _said_names(said))
    if lowercase is None:
        lowercase = bool(said.get("do_lower_case", True))
        strip_accents = said.get("strip_accents") if strip_accents is None else strip_accents
    strip_accents = lowercase if strip_accents is None else bool(strip_accents)
    chinese = bool(said.get("tokenize_chinese_chars", True))
    found = wordpiece.definition(entries, names["unk"], lowercase, strip_accents, chinese)
    return found, names


def read(path: Path, lowercase: bool | None, strip_accents: bool | None) -> Found:
    """Reads our folder or one that transformers saved. Raises UserError for others."""
    said = {**_json(path / _MAP), **_json(path / _CONFIG)}
    if (path / DEFINITION).is_file():
        return _from_definition(path, said, lowercase, strip_accents)
    if (path / _VOCAB).is_file():
        return (*from_vocab(path / _VOCAB, said, lowercase, strip_accents), None)
    models = sorted(path.glob("*.model"))
    if models:
        raise UserError(
            f"folder {path} has a SentencePiece model but no {DEFINITION}, so nothing says how "
            f"its ids are used; give the model itself ({models[0]}), or save the folder again with "
            "transformers' save_pretrained"
        )
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
) -> None:
    """Writes the folder (see `Tokenizer.save`)."""
    with files.disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    entries = tokens(definition)
    ids = {token: number for number, token in enumerate(entries)}
    ours = [spm.added_token(ids[names[role]], names[role], special=True) for role in special.NAMES]
    taken = {token["content"] for token in ours}
    others = [t for t in definition.get("added_tokens") or () if t["content"] not in taken]
    full = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        **definition,
        "added_tokens": sorted((*ours, *others), key=lambda token: token["id"]),
        "post_processor": _template(names, ids),
    }
    files.write_text(path / DEFINITION, json.dumps(full, ensure_ascii=False) + "\n")
    map_ = {f"{role}_token": names[role] for role in special.NAMES}
    files.write_json(path / _MAP, map_)
    config: dict[str, Any] = {**map_, "model_input_names": _INPUTS}
    if max_length is not None:
        config["model_max_length"] = max_length
    if definition["model"]["type"] == "WordPiece":
        rules = definition["normalizer"]
        config |= {
            "tokenizer_class": "ElectraTokenizer",
            "do_lower_case": rules["lowercase"],
            "strip_accents": rules["strip_accents"],
            "tokenize_chinese_chars": rules["handle_chinese_chars"],
        }
        files.write_text(path / _VOCAB, "".join(f"{token}\n" for token in entries))
    else:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is
        if model_file is not None:
            files.write_bytes(path / _SPIECE, model_file)
    files.write_json(path / _CONFIG, config)


_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


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


def _from_definition(
    path: Path, said: Mapping[str, Any], lowercase: bool | None, strip_accents: bool | None
) -> Found:
    found = _json(path / DEFINITION)
    where = os.path.join(path, DEFINITION)
    model = found.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise UserError(f"{where} has no model with a vocabulary; it is no tokenizer definition")
    kind = model.get("type") or ("WordPiece" if "continuing_subword_prefix" in model else "?")
    model["type"] = kind
    supported = kind == "WordPiece" or (kind in ("Unigram", "BPE") and spm.is_like(found))
    if not supported:
        what = "byte-level BPE" if kind == "BPE" else kind
        raise UserError(
            f"{where} is a {what} tokenizer; expected WordPiece, or SentencePiece unigram or BPE"
        )
    ids = {token: number for number, token in enumerate(tokens(found))}
    names = special.find(
        where, ids, "add it with transformers' add_special_tokens", _said_names(said)
    )
    if kind == "WordPiece":
        if lowercase is None and "do_lower_case" in said:
            lowercase = bool(said["do_lower_case"])
            strip_accents = said.get("strip_accents") if strip_accents is None else strip_accents
        return (
            wordpiece.canonical(where, found, names["unk"], lowercase, strip_accents),
            names,
            None,
        )
    keep = ("added_tokens", "normalizer", "pre_tokenizer", "decoder", "model")
    spiece = path / _SPIECE
    data = spiece.read_bytes() if spiece.is_file() else None
    return {part: found.get(part) for part in keep}, names, data


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}; expected a JSON object")
    return found
