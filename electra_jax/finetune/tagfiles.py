"""Files of tagged words: CoNLL columns, JSON lists of words and tags, JSON character spans."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from electra_jax.finetune import tables
from electra_jax.finetune.examples import TagExample
from electra_jax.finetune.tags import Span, rewrite, write
from electra_jax.finetune.wanted import Wanted, unknown_label
from electra_jax.spec import UserError

Names = tuple[str, ...]
_BETWEEN_DOCUMENTS = "-DOCSTART-"


@dataclasses.dataclass(frozen=True)
class Conll:
    """A word a line, columns between white space, an empty line between sentences.

    `word` and `tag` are column numbers; -1 is the last. `scheme`: what the entity tags are written
    in for training; None leaves the tags alone (parts of speech). The entities stay the same.
    Lines -DOCSTART- are passed over.
    """

    word: int = 0
    tag: int = -1
    scheme: str | None = "iob2"

    def read(self, path: str, wanted: Wanted) -> list[TagExample]:
        """The sentences of a file; UserError names the line that is at fault."""
        found: list[TagExample] = []
        words: list[str] = []
        said: list[str] = []
        width = 0
        for line, text in tables.numbered(path):
            columns = text.split()
            if not columns:
                self._close(found, words, said, wanted)
                continue
            if columns[0] == _BETWEEN_DOCUMENTS:
                continue
            width = width or len(columns)
            where = f"{path}:{line}"
            if len(columns) != width:
                raise UserError(f"{where}: found {len(columns)} columns; expected {width}")
            if width == 1 and wanted.labelled:
                raise UserError(
                    f"{where}: found a word without a tag; expected two columns or more"
                )
            if max(self.word, self.tag) >= width:
                raise UserError(
                    f"{where}: found {width} columns; column {max(self.word, self.tag)} (counted "
                    "from 0) is not among them"
                )
            words.append(columns[self.word])
            if width > 1:
                said.append(columns[self.tag])
                if self.scheme is None:
                    _check(where, said[-1], wanted)
                else:
                    _check_entity(where, said[-1], wanted)
        self._close(found, words, said, wanted)
        if not found:
            raise UserError(f"{path} has no sentence")
        return found

    def _close(
        self, found: list[TagExample], words: list[str], said: list[str], wanted: Wanted
    ) -> None:
        if words:
            tags = tuple(said) if self.scheme is None else rewrite(said, self.scheme)
            found.append(TagExample(str(len(found)), tuple(words), tags if said else None))
            words.clear()
            said.clear()


@dataclasses.dataclass(frozen=True)
class TagLists:
    """JSON lines with a list of words and one of tags of the same length."""

    words: Names = ("words", "tokens")
    tags: Names = ("tags", "ner_tags", "labels")
    id: Names = ("id",)
    scheme: str | None = None

    def read(self, path: str, wanted: Wanted) -> list[TagExample]:
        """The sentences of a file; UserError names the line that is at fault."""
        found: list[TagExample] = []
        for line, row in tables.rows(path):
            where = f"{path}:{line}"
            words = _texts(
                row[tables.column(path, row, self.words, "--config.data.words")], where, "words"
            )
            tags = None
            if wanted.labelled or any(name in row for name in self.tags):
                tags = _texts(
                    row[tables.column(path, row, self.tags, "--config.data.tags")], where, "tags"
                )
                if len(tags) != len(words):
                    raise UserError(f"{where}: found {len(tags)} tags for {len(words)} words")
                if self.scheme is None:
                    for tag in tags:
                        _check(where, tag, wanted)
                else:
                    tags = rewrite(tags, self.scheme)
            name = next((name for name in self.id if name in row), None)
            found.append(TagExample(str(row[name] if name else len(found)), words, tags))
        if not found:
            raise UserError(f"{path} has no sentence")
        return found


@dataclasses.dataclass(frozen=True)
class CharacterSpans:
    """CLUENER's JSON lines: a text, and per type the surfaces with their [first, last] characters.

    Every character is a word, white space included, so that numbers stay what they are.
    """

    scheme: str = "iob2"

    def read(self, path: str, wanted: Wanted) -> list[TagExample]:
        """The sentences of a file; UserError names the line that is at fault."""
        found: list[TagExample] = []
        overlapping = 0
        for line, row in tables.rows(path):
            where = f"{path}:{line}"
            text = wanted.text(row[tables.column(path, row, ("text",))], where, "text")
            tags, entities = None, None
            if wanted.labelled or "label" in row:
                said = row[tables.column(path, row, ("label",))]
                entities = tuple(_character_entities(where, text, said, wanted))
                kept = apart(entities)
                overlapping += len(entities) - len(kept)
                tags = write(kept, len(text), self.scheme)
            name = str(row.get("id", len(found)))
            found.append(TagExample(name, tuple(text), tags, entities))
        if overlapping:
            wanted.notes.append(f"{path}: {overlapping} entities inside longer ones left out")
        return found


def _character_entities(where: str, text: str, said: Any, wanted: Wanted) -> list[Span]:
    entities = []
    for kind, surfaces in said.items():
        check_type(where, kind, wanted)
        for surface, places in surfaces.items():
            for first, last in places:
                if text[first : last + 1] != surface:
                    raise UserError(
                        f"{where}: {kind} {surface!r} is not at characters {first} to {last}, "
                        f"where the text has {text[first : last + 1]!r}"
                    )
                entities.append(Span(kind, first, last + 1))
    return entities


def apart(entities: Sequence[Span]) -> list[Span]:
    """The entities without those that overlap a longer one (of two equal ones, the first stays)."""
    kept: list[Span] = []
    for span in sorted(entities, key=lambda span: span.start - span.stop):
        if all(span.stop <= other.start or other.stop <= span.start for other in kept):
            kept.append(span)
    return kept


def _texts(value: Any, where: str, column: str) -> tuple[str, ...]:
    """A list of texts: a JSON list, or words between spaces (in a TSV)."""
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"{where}: {column!r} is no list of texts")
    if not value:
        raise UserError(f"{where}: {column!r} is empty")
    if any(not word.strip() for word in value) and column == "words":
        raise UserError(f"{where}: {column!r} holds an empty word")
    return tuple(value)


def _check(where: str, tag: str, wanted: Wanted) -> None:
    if wanted.labels is not None and tag not in wanted.labels:
        raise unknown_label(where, tag, wanted.labels)


def _check_entity(where: str, tag: str, wanted: Wanted) -> None:
    """The type must be known; the prefix may be of any scheme."""
    prefix, dash, kind = tag.partition("-")
    if dash:
        if prefix not in ("B", "I", "E", "S"):
            raise UserError(f"{where}: tag {tag!r} begins with none of B- I- E- S-")
        check_type(where, kind, wanted)
    elif tag != "O":
        raise UserError(f"{where}: tag {tag!r} is neither O nor one such as B-PER")


def check_type(where: str, kind: str, wanted: Wanted) -> None:
    """UserError for a type of entity that the task does not know."""
    if wanted.labels is not None:
        types = sorted({label.partition("-")[2] for label in wanted.labels} - {""})
        if kind not in types:
            raise unknown_label(where, kind, types)
