"""Byte-level BPE, as ModernBERT has it: entries spell bytes, and a blank belongs to the word that it stands before."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TYPE = "ByteLevel"
# How entries spell a blank, a line's end and a tab: what a word begins with inside a text.
_BEFORE_WORDS = ("\u0120", "\u010a", "\u0109")


def is_like(definition: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` splits text into words by GPT-2's pattern, with nothing put before the first."""
    splitter = definition.get("pre_tokenizer") or {}
    model = definition.get("model") or {}
    return (
        model.get("type") == "BPE"
        and splitter.get("type") == TYPE
        and splitter.get("add_prefix_space") is False
        and splitter.get("use_regex", True) is True
    )


def starts(tokens: Sequence[str], definition: Mapping[str, Any]) -> np.ndarray:
    """bool [size]: the entry begins a word wherever it stands; added ones do. A text's first word has no such mark."""
    added = {token["content"] for token in definition.get("added_tokens") or ()}
    return np.array([t.startswith(_BEFORE_WORDS) or t in added for t in tokens], bool)
