"""Japanese words, found by MeCab through fugashi as transformers' BertJapaneseTokenizer finds them."""

import dataclasses
import functools
import importlib
import os
import unicodedata
from typing import Any

from electra_jax.spec import UserError, check_choice

# Dictionary -> the package that brings it.
DICTIONARIES = {"unidic_lite": "unidic-lite", "ipadic": "ipadic", "unidic": "unidic"}
DEFAULT = "unidic_lite"  # that of transformers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmenter:
    """Splits a line into words: `Segmenter(dictionary="ipadic")(line)`.

    dictionary: a key of DICTIONARIES, or None when `options` names one of the machine (-d PATH).
    options: further arguments of MeCab. normalize: NFKC first, as BertJapaneseTokenizer does.
    Equal segmenters give equal words (with one version of the dictionary); cheap to pickle, because
    each process opens the dictionary when it first splits. Raises UserError at once for an unknown
    dictionary, a package that is missing, and what MeCab cannot open.
    """

    dictionary: str | None = DEFAULT
    options: str = ""
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.dictionary is not None:
            check_choice("MeCab dictionary", self.dictionary, tuple(DICTIONARIES))
        _tagger(self.dictionary, self.options)

    def __call__(self, line: str) -> list[str]:
        """The words, in order; white space between them is left out."""
        return self.words(self.prepared(line))

    def prepared(self, line: str) -> str:
        """The line as MeCab reads it: its words are stretches of this text."""
        line = unicodedata.normalize("NFKC", line) if self.normalize else line
        return line.replace("\0", " ")  # MeCab reads no further than a NUL

    def words(self, prepared: str) -> list[str]:
        """The words of a line that `prepared` returned."""
        return [word.surface for word in _tagger(self.dictionary, self.options)(prepared)]

    def described(self) -> dict[str, Any]:
        """What makes the words, for JSON: the `mecab_kwargs` of a tokenizer_config.json."""
        return {
            "mecab_dic": self.dictionary,
            "mecab_option": self.options or None,
            "normalize_text": self.normalize,
        }

    @classmethod
    def from_description(cls, said: dict[str, Any]) -> "Segmenter":
        """The segmenter of `mecab_kwargs`; what is missing has transformers' default."""
        return cls(
            dictionary=said.get("mecab_dic", DEFAULT),
            options=said.get("mecab_option") or "",
            normalize=bool(said.get("normalize_text", True)),
        )


@functools.cache
def _tagger(dictionary: str | None, options: str) -> Any:
    """fugashi's tagger: one in a process for all segmenters that are equal."""
    packages = ["fugashi", *([dictionary] if dictionary is not None else [])]
    modules = []
    for package in packages:
        try:
            modules.append(importlib.import_module(package))
        except ImportError:
            raise UserError(_missing(package)) from None
    if dictionary is not None:
        folder = modules[1].DICDIR
        if not os.path.isdir(folder):  # unidic's package comes without its data
            raise UserError(
                f"the dictionary of the package {dictionary} is not there yet: "
                f"python -m {dictionary} download"
            )
        options = f'-d "{folder}" -r "{os.path.join(folder, "mecabrc")}" {options}'
    try:
        return modules[0].GenericTagger(options)
    except RuntimeError:  # MeCab has written its reason to stderr
        raise UserError(f"MeCab cannot open a dictionary with the arguments {options}") from None


def _missing(package: str) -> str:
    name = DICTIONARIES.get(package, package)
    install = f"pip install {name}" if package == "unidic" else "pip install 'electra_jax[ja]'"
    return f"finding Japanese words needs the package {name}: {install}"
