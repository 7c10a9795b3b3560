"""What transformers makes of a tokenizer folder by the class that it names.

A class with rules of its own builds its tokenizer from the vocabulary and `tokenizer_config.json`,
whatever normaliser and pre-tokenizer `tokenizer.json` has. Ids here are those of transformers 5.
"""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError
from electra_jax.text import added, japanese
from electra_jax.text.spm import SPACE

# BERT's rules, with the options in tokenizer_config.json (lower case unless it says otherwise).
BERT = (
    "BertTokenizer",
    "ElectraTokenizer",
    "DistilBertTokenizer",
    "MobileBertTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "SqueezeBertTokenizer",
    "FunnelTokenizer",
    "MPNetTokenizer",
)
# tokenizer.json as it is.
AS_SAVED = (
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "PythonBackend",
    "ConvBertTokenizer",
    "FNetTokenizer",
)
# Kinds of models whose folders need not name the class.
_OF_MODEL = {"electra", "bert", "convbert", "layoutlm", "megatron-bert", "ernie", "nezha"}

_Rules = dict[str, Any]


def name(path: Path, said: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """The class of a folder without "Fast", from `tokenizer_config.json` or the model's `config.json`.

    None when neither names one. Raises UserError for a class that is not known.
    """
    known = (*BERT, *AS_SAVED, *SENTENCEPIECE, japanese.CLASS)
    found = said.get("tokenizer_class") or model.get("tokenizer_class")
    if found is None:
        return "BertTokenizer" if model.get("model_type") in _OF_MODEL else None
    bare = str(found).removesuffix("Fast")
    if bare not in known:
        raise UserError(
            f"the tokenizer in {path} is a {found}, whose rules are not known here; known classes: "
            f"{', '.join(sorted(known))}. If its tokenizer.json says all of its rules, make the "
            'class "PreTrainedTokenizerFast" in a copy of the folder'
        )
    return bare


def sentencepiece(
    where: str, kind: str, said: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """The parts of a unigram `tokenizer.json` as the class `kind` builds them anew."""
    model = found["model"]
    if model["type"] != "Unigram" or not isinstance(model["vocab"], list):
        raise UserError(
            f"{where} is a {model['type']} tokenizer; its class {kind} has a unigram model"
        )
    normalizer, splitter, unk = SENTENCEPIECE[kind](said, _charsmap(found))
    if not isinstance(unk, int):
        unk = _unknown(model["vocab"], str(unk), said, kind)
    if not 0 <= unk < len(model["vocab"]):
        raise UserError(f"{where}: {kind} has its unknown token at {unk}, beyond the vocabulary")
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizer},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitter},
        "decoder": dict(splitter[-1]),
        "model": {
            "type": "Unigram",
            "unk_id": unk,
            "vocab": model["vocab"],
            "byte_fallback": False,
        },
    }


def from_model(kind: str, said: Mapping[str, Any], proto: Any, known: set[str]) -> dict[str, Any]:
    """What `tokenizer.json` would hold for a folder of a class with a SentencePiece model alone.

    The class gives some entries of the model other ids, and ids behind the vocabulary to special
    tokens that are in neither the model nor `known`, the folder's added tokens.
    """
    unk, pad, mask = (_named(said, kind, role) for role in ("unk", "pad", "mask"))
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    if kind == "XLMRobertaTokenizer":
        first = (_named(said, kind, "bos"), pad, _named(said, kind, "eos"), unk)
        pieces = [*((token, 0.0) for token in first), *pieces[3:], (mask, 0.0)]
    elif kind == "CamembertTokenizer":
        first = ("<s>NOTUSED", pad, "</s>NOTUSED", unk)
        rest = [("<unk>NOTUSED", -100.0), *pieces[1:]]
        pieces = [*((token, 0.0) for token in first), *rest, (mask, 0.0)]
    numbers = {token: number for number, (token, _) in enumerate(pieces)}
    listed = []
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        token = _named(said, kind, role)
        if token not in numbers and token not in known:
            numbers[token] = len(numbers) + len(known)
        if token in numbers:
            listed.append(added.token(numbers[token], token, special=True))
    table = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    rules = {"type": "Precompiled", "precompiled_charsmap": table} if table else {}
    return {
        "normalizer": rules,
        "added_tokens": list({token["id"]: token for token in listed}.values()),
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [list(piece) for piece in pieces]},
    }


def _named(said: Mapping[str, Any], kind: str, role: str) -> str:
    """The name of a special token in a folder of a class."""
    token = said.get(f"{role}_token")
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else _NAMES[kind][role]


def _charsmap(found: Mapping[str, Any]) -> list[_Rules]:
    """The first table of rules in the normaliser, as a list of one, or empty."""
    normalizer = found.get("normalizer") or {}
    steps = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    return [step for step in steps if step.get("type") == "Precompiled"][:1]


def _unknown(vocab: list[Any], usual: str, said: Mapping[str, Any], kind: str) -> int:
    """Where the class finds its unknown token: by name, and else where it usually is."""
    wanted = _named(said, kind, "unk")
    for number, (token, score) in enumerate(vocab):
        if token == wanted and (score == 0.0 or kind == "CamembertTokenizer"):
            return number
    return int(usual)


def _special(line: str) -> dict[str, str]:
    return dict(zip(("bos", "eos", "unk", "sep", "pad", "cls", "mask"), line.split(), strict=True))


_ROBERTA = _special("<s> </s> <unk> </s> <pad> <s> <mask>")
_ALBERT = _special("[CLS] [SEP] <unk> [SEP] <pad> [CLS] [MASK]")
# The names that a class gives to its special tokens, unless the folder does.
_NAMES = {
    "AlbertTokenizer": _ALBERT,
    "RemBertTokenizer": _ALBERT,
    "XLNetTokenizer": _special("<s> </s> <unk> <sep> <pad> <cls> <mask>"),
    "XLMRobertaTokenizer": _ROBERTA,
    "CamembertTokenizer": _ROBERTA,
    "BarthezTokenizer": _ROBERTA,
    "MBartTokenizer": _ROBERTA,
    "DebertaV2Tokenizer": _special("[CLS] [SEP] [UNK] [SEP] [PAD] [CLS] [MASK]"),
    "BigBirdTokenizer": _special("<s> </s> <unk> [SEP] <pad> [CLS] [MASK]"),
}
_QUOTES: list[_Rules] = [
    {"type": "Replace", "pattern": {"String": quotes}, "content": '"'} for quotes in ("``", "''")
]
_NO_ACCENTS: list[_Rules] = [{"type": "NFKD"}, {"type": "StripAccents"}]
_LOWER: list[_Rules] = [{"type": "Lowercase"}]
_BLANKS = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
_WHITE = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
_NO_STRIP = {"type": "Strip", "strip_left": False, "strip_right": False}
_STRIP_RIGHT = {"type": "Strip", "strip_left": False, "strip_right": True}
_SPLIT = {"type": "WhitespaceSplit"}

Built = tuple[list[_Rules], list[_Rules], int | str]


def _space(said: Mapping[str, Any], otherwise: str = "never") -> _Rules:
    scheme = "always" if said.get("add_prefix_space", True) else otherwise
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}


def _number(said: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = said.get(key, otherwise)
    return value if isinstance(value, int) else otherwise


def _albert(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    accents = [] if said.get("keep_accents", False) else _NO_ACCENTS
    lower = _LOWER if said.get("do_lower_case", True) else []
    return [*_QUOTES, *accents, *lower, *table], [_SPLIT, _space(said)], 1


def _xlnet(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    lower = _LOWER if said.get("do_lower_case", False) else []
    unk = _number(said, "unk_id", 0)
    return [*_QUOTES, *_NO_ACCENTS, *lower, *table], [_SPLIT, _space({})], unk


def _rembert(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    accents = [] if said.get("keep_accents", True) else _NO_ACCENTS
    lower = _LOWER if said.get("do_lower_case", False) else []
    return [*_QUOTES, _BLANKS, *accents, *lower, *table], [_space(said)], 2


def _roberta(unk: int | str) -> Callable[[Mapping[str, Any], list[_Rules]], Built]:
    def rules(said: Mapping[str, Any], table: list[_Rules]) -> Built:
        return table, [_SPLIT, _space(said)], unk

    return rules


def _deberta(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    lower = _LOWER if said.get("do_lower_case", False) else []
    punctuation = {"type": "Punctuation", "behavior": "Isolated"}
    marks = [punctuation] if said.get("split_by_punct", False) else []
    return (
        [*lower, _WHITE, {"type": "NFC"}, _STRIP_RIGHT],
        [*marks, _space(said, "first")],
        str(_number(said, "unk_id", 1)),
    )


def _barthez(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    return [_WHITE, {"type": "NFC"}, _STRIP_RIGHT], [_space(said)], 3


def _big_bird(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    return [_NO_STRIP, {**_BLANKS, "content": SPACE}], [_space(said)], "100"


def _mbart(said: Mapping[str, Any], table: list[_Rules]) -> Built:
    return [], [_SPLIT, _space({})], 3


# Class -> its normaliser, pre-tokenizer and the id of the unknown token (a string: the id when the
# vocabulary has none of that name), from tokenizer_config.json and the table of rules.
SENTENCEPIECE: dict[str, Callable[[Mapping[str, Any], list[_Rules]], Built]] = {
    "AlbertTokenizer": _albert,
    "XLNetTokenizer": _xlnet,
    "RemBertTokenizer": _rembert,
    "XLMRobertaTokenizer": _roberta(3),
    "CamembertTokenizer": _roberta("0"),
    "DebertaV2Tokenizer": _deberta,
    "BarthezTokenizer": _barthez,
    "BigBirdTokenizer": _big_bird,
    "MBartTokenizer": _mbart,
}
# Those whose ids follow from a SentencePiece model (MBart has a list of languages besides).
FROM_MODEL = tuple(kind for kind in SENTENCEPIECE if kind != "MBartTokenizer")
