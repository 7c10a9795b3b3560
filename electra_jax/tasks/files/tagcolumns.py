"""Columns of files with a word a line: what divides them, which are read, which lines are no words."""

import dataclasses
import re
from collections.abc import Iterator

from electra_jax.spec import UserError, nearest
from electra_jax.tasks import tags
from electra_jax.tasks.files import tables

Column = int | str | None
_BETWEEN_DOCUMENTS = "-DOCSTART-"
# CoNLL-U's columns (universaldependencies.org/format.html); "# global.columns = ..." names others.
_CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
# A first line of these, in capitals or not, is a header: what columns are usually called.
_WORD_NAMES = ("word", "words", "token", "tokens", "form", "text")
_TAG_NAMES = (
    *("tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "pos", "pos_tag", "pos_tags"),
    *("upos", "xpos", "chunk", "entity"),
)
CONLLU = (".conllu", ".conllup")  # endings of files
_FIRST = re.compile(r"0\.1$|1(-\d+)?$")  # the ID of a first line
_GLOBAL = "# global.columns ="
# IDs of CoNLL-U that number no word: 1-2 is several words written as one, 8.1 is an empty one.
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")


@dataclasses.dataclass(frozen=True)
class Columns:
    """How the lines of a file divide, and which of their columns are read."""

    tabs: bool
    width: int
    word: int
    tag: int | None  # None: the file has no tags
    conllu: bool
    header: int | None  # the line with the columns' names, if the file has one

    @classmethod
    def of(cls, path: str, word: Column, tag: Column, tagged: bool) -> "Columns":
        """As the first line that is no comment says; `tagged`: the file must have tags."""
        first, named = None, list(_CONLLU)
        for line, text in tables.numbered(path):
            if text.startswith(_GLOBAL):
                named = text.removeprefix(_GLOBAL).split()
            if not text.strip() or _is_between(text):
                continue
            if first is None or first[1].startswith("#"):
                first = (line, text)
            if not text.startswith("#"):
                break
        if first is None:
            raise UserError(f"{path} has no sentence")
        line, text = first
        tabs = "\t" in text
        values = divided(text, tabs)
        header = None
        by_name = [column for column in (word, tag) if isinstance(column, str)]
        conllu = tabs and len(values) == len(named)
        conllu = conllu and (tables.suffix(path) in CONLLU or bool(_FIRST.match(values[0])))
        if by_name and not conllu:
            header, named = line, values
        if conllu:
            word = "FORM" if word is None and "FORM" in named else word
            tag = "UPOS" if tag is None and "UPOS" in named else tag
        where = f"{path}:{line}"
        words = _place(where, 0 if word is None else word, named, len(values))
        said: int | None = None
        try:
            if tagged or len(values) > 1:
                said = _place(where, -1 if tag is None else tag, named, len(values))
        except UserError:
            if tagged:
                raise
        if not conllu and said is not None and values[words].casefold() in _WORD_NAMES:
            header = line if values[said].casefold() in _TAG_NAMES else header
        return cls(tabs, len(values), words, said, conllu, header)

    def lines(self, path: str, entities: bool) -> Iterator[tuple[int, list[str]]]:
        """(line, columns) of every word, (line, []) between sentences."""
        begins = True
        for line, text in tables.numbered(path):
            if not text.strip():
                begins = True
                yield line, []
                continue
            values = divided(text, self.tabs)
            if line == self.header or _is_between(text):
                continue
            if text.startswith("#") and (begins or self.conllu) and self._comment(values, entities):
                continue
            begins = False
            if len(values) != self.width:
                kind = "tabs" if self.tabs else "blanks"
                raise UserError(
                    f"{path}:{line}: found {len(values)} columns; expected {self.width}, between {kind}"
                )
            if not values[self.word]:
                raise UserError(f"{path}:{line}: the word is empty")
            if not (self.conllu and _NOT_A_WORD.fullmatch(values[0])):
                yield line, values

    def _comment(self, values: list[str], entities: bool) -> bool:
        """Whether a line that begins with # before a sentence is no word of it."""
        if self.conllu or len(values) != self.width:
            return True
        if values[0] != "#":
            return True
        return entities and self.tag is not None and tags.fault(values[self.tag]) is not None


def _is_between(text: str) -> bool:
    """Whether a line stands between documents, whatever divides its columns."""
    return text.startswith(_BETWEEN_DOCUMENTS) and text.split()[0] == _BETWEEN_DOCUMENTS


def divided(text: str, tabs: bool) -> list[str]:
    """The columns of a line, between tabs, or else between blanks; no other white space counts."""
    if tabs:
        return [value.strip(" ") or value for value in re.split(r"\t+", text.rstrip("\t "))]
    return re.split(" +", text.strip(" "))


def _place(where: str, column: int | str, named: list[str], width: int) -> int:
    """The number, from 0, of a column given by number or by name, in capitals or not."""
    if isinstance(column, int):
        if -width <= column < width:
            return column % width
        raise UserError(
            f"{where}: found {width} columns; column {column} is not among them (they are counted "
            "from 0, -1 is the last)"
        )
    folded = [name.casefold() for name in named]
    if column.casefold() in folded:
        return folded.index(column.casefold())
    guess = nearest(column, named)
    hint = f" Did you mean {guess!r}?" if guess else ""
    raise UserError(
        f"{where}: no column {column!r}.{hint} Found: {', '.join(map(repr, named))}. (Of a file "
        "without names in its first line, give the number, counted from 0, -1 for the last)"
    )
