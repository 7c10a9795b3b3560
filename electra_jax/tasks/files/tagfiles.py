"""Files of tagged words: CoNLL columns, JSON lists of words and tags, JSON character spans."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from electra_jax.spec import UserError
from electra_jax.tasks import tags
from electra_jax.tasks.examples import TagExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.tagcolumns import Column, Columns, divided
from electra_jax.tasks.files.wanted import Wanted, unknown_label
from electra_jax.tasks.tags import Span, write

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence as its file has it; `where` is the place of each word."""

    id: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    where: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Conll:
    """A word a line in columns, an empty line between sentences.

    Columns stand between tabs, where the first line has one (then blanks belong to the words), else
    between blanks. `word` and `tag` are numbers, counted from 0, -1 the last, or names: those of
    CoNLL-U, or those in the first line; None is the first and the last, in CoNLL-U FORM and UPOS.
    `scheme`: what the entity tags are written in for training; None leaves the tags alone (parts of
    speech). The entities stay the same. `names` are those of tags that are numbers. Passed over:
    -DOCSTART-, lines that begin with # and are no word, and CoNLL-U's lines of several words and of
    empty ones.
    """

    word: Column = None
    tag: Column = None
    scheme: str | None = "iob2"
    names: Names | None = None

    def read(self, path: str, wanted: Wanted) -> list[TagExample]:
        """The sentences of a file; UserError names the line that is at fault."""
        sentences = list(self._sentences(path, wanted))
        return _checked(path, sentences, self.scheme, self.names, wanted)

    def _sentences(self, path: str, wanted: Wanted) -> Iterator[Sentence]:
        columns = Columns.of(path, self.word, self.tag, wanted.labelled)
        words: list[str] = []
        said: list[str] = []
        where: list[str] = []
        number = 0
        lines = columns.lines(path, self.scheme is not None)
        for line, values in itertools.chain(lines, [(0, [])]):
            if values:
                if columns.width == 1 and wanted.labelled:
                    raise UserError(
                        f"{path}:{line}: found a word without a tag; expected two columns or more"
                    )
                words.append(values[columns.word])
                said += [] if columns.tag is None else [values[columns.tag]]
                where.append(f"{path}:{line}")
            elif words:
                empty = columns.conllu and set(said) == {"_"}  # what is not said
                if empty and wanted.labelled:
                    raise UserError(f"{where[0]}: the sentence has no tags, only _")
                tagged = tuple(said) if said and not empty else None
                yield Sentence(str(number), tuple(words), tagged, tuple(where))
                number += 1
                words, said, where = [], [], []


@dataclasses.dataclass(frozen=True)
class TagLists:
    """Rows with a list of words and one of tags of the same length.

    `names` are those of tags that are numbers, as in data sets of the `datasets` library.
    """

    words: Names = ("words", "tokens")
    tags: Names = ("tags", "ner_tags", "labels")
    id: Names = ("id",)
    scheme: str | None = None
    names: Names | None = None

    def read(self, path: str, wanted: Wanted) -> list[TagExample]:
        """The sentences of a file; UserError names the line that is at fault."""
        found: list[Sentence] = []
        for line, row in tables.rows(path):
            where = f"{path}:{line}"
            words = _texts(
                row[tables.column(path, row, self.words, "--config.data.words")], where, "words"
            )
            tagged = None
            if wanted.labelled or any(name in row for name in self.tags):
                said = row[tables.column(path, row, self.tags, "--config.data.tags")]
                if said is not None or wanted.labelled:
                    tagged = _texts(self._numbers(where, said), where, "tags")
                    if len(tagged) != len(words):
                        raise UserError(f"{where}: found {len(tagged)} tags for {len(words)} words")
            name = next((name for name in self.id if name in row), None)
            here = str(row[name] if name else len(found))
            found.append(Sentence(here, words, tagged, [where] * len(words)))
        return _checked(path, found, self.scheme, self.names, wanted)

    def _numbers(self, where: str, said: Any) -> Any:
        """Numbers as texts, where names are given for them or none are needed."""
        if not isinstance(said, list) or not all(type(tag) is int for tag in said):
            return said
        if self.names is None and self.scheme is not None:
            raise UserError(
                f"{where}: 'tags' are numbers; say what they mean in their order, with "
                "--config.data.tag_names=O,B-PER,... (plain classes: --config.data.scheme=None)"
            )
        return [str(tag) for tag in said]


def _checked(
    path: str, found: list[Sentence], scheme: str | None, names: Names | None, wanted: Wanted
) -> list[TagExample]:
    """The examples, their tags checked and written in `scheme`.

    Tags of a file that mark no entities stay as they are, where the task's classes are not known yet.
    """
    if not found:
        raise UserError(f"{path} has no sentence")
    if names is not None:
        found = [dataclasses.replace(s, tags=_named(s, names)) for s in found]
    _check_words(path, found, wanted)
    said = [tag for sentence in found for tag in sentence.tags or ()]
    if scheme is not None and wanted.labels is None and said and not tags.mark_entities(said):
        wanted.notes.append(
            f"{path}: its tags ({', '.join(sorted(set(said))[:3])}, ...) mark no entities, so they are "
            "learned as they are and scored by accuracy, as --config.data.scheme=None says"
        )
        scheme = None
    examples = []
    for sentence in found:
        try:
            written = _written(sentence, scheme, wanted)
        except UserError as error:
            if wanted.labelled:
                raise
            wanted.strange.append(str(error))
            written = None
        examples.append(TagExample(sentence.id, sentence.words, written))
    wanted.tell_strange(path)
    return examples


def _written(sentence: Sentence, scheme: str | None, wanted: Wanted) -> tuple[str, ...] | None:
    """The tags of a sentence, checked, in `scheme`."""
    if sentence.tags is None:
        return None
    for where, tag in zip(sentence.where, sentence.tags, strict=True):
        _check(where, tag, scheme, wanted)
    if scheme is None:
        return sentence.tags
    written = tags.rewrite(sentence.tags, scheme)
    for where, tag in zip(sentence.where, written, strict=True):
        if wanted.labels is not None and tag not in wanted.labels:
            raise unknown_label(where, tag, wanted.labels)
    return written


def _named(sentence: Sentence, names: Names) -> tuple[str, ...] | None:
    """The tags of a sentence with their names in place of numbers; names stay."""
    if sentence.tags is None:
        return None
    for where, tag in zip(sentence.where, sentence.tags, strict=True):
        number = tag.isascii() and tag.isdigit() and len(tag) < 10 and int(tag) < len(names)
        if not number and tag not in names:
            raise UserError(
                f"{where}: tag {tag!r} is no number from 0 to {len(names) - 1}, the last of tag_names"
            )
    return tuple(names[int(tag)] if tag.isdigit() else tag for tag in sentence.tags)


def _check_words(path: str, found: list[Sentence], wanted: Wanted) -> None:
    """A column of nothing but numbers is hardly the words'; one with blanks everywhere is several."""
    words = [word for sentence in found for word in sentence.words]
    if all(word.isdigit() for word in words):
        said = (
            f"{path}: every word is a number, such as {words[0]}; is this the words' column? Name it "
            "with --config.data.words; numbers of columns are counted from 0"
        )
        if wanted.labelled:
            raise UserError(said)
        wanted.notes.append(said)
    blanks = sum(" " in word for word in words)
    if 2 * blanks > len(words):
        wanted.notes.append(
            f"{path}: {blanks} of {len(words)} words hold a blank: columns are divided at tabs alone"
        )


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
            tagged, entities = None, None
            if wanted.labelled or "label" in row:
                said = row[tables.column(path, row, ("label",))]
                entities = tuple(_character_entities(where, text, said, wanted))
                kept = apart(entities)
                overlapping += len(entities) - len(kept)
                tagged = write(kept, len(text), self.scheme)
            name = str(row.get("id", len(found)))
            found.append(TagExample(name, tuple(text), tagged, entities))
        if overlapping:
            wanted.notes.append(f"{path}: {overlapping} entities inside longer ones left out")
        return found


def _character_entities(where: str, text: str, said: Any, wanted: Wanted) -> list[Span]:
    entities = []
    try:
        found = [
            (kind, surface, first, last)
            for kind, surfaces in said.items()
            for surface, places in surfaces.items()
            for first, last in places
        ]
        there = [text[first : last + 1] for _, _, first, last in found]
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{where}: 'label' is not in CLUENER's layout: type -> text -> [[first, last], ...]"
        ) from None
    for (kind, surface, first, last), held in zip(found, there, strict=True):
        check_type(where, kind, wanted)
        if held != surface:
            raise UserError(
                f"{where}: {kind} {surface!r} is not at characters {first} to {last}, "
                f"where the text has {held!r}"
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
        value = divided(value, tabs=False)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"{where}: {column!r} is no list of texts")
    if not value:
        raise UserError(f"{where}: {column!r} is empty")
    if any(not word.strip(" \t\r\n") for word in value) and column == "words":
        raise UserError(f"{where}: {column!r} holds an empty word")
    return tuple(value)


def _check(where: str, tag: str, scheme: str | None, wanted: Wanted) -> None:
    """A tag must be of the task; of an entity the type must, and the prefix may be of any scheme."""
    if scheme is None:
        if wanted.labels is not None and tag not in wanted.labels:
            raise unknown_label(where, tag, wanted.labels)
        return
    fault = tags.fault(tag)
    if fault is not None:
        plain = "; tags that mark no entities are read with --config.data.scheme=None"
        raise UserError(f"{where}: tag {tag!r} {fault}{plain}")
    if tag != tags.OUTSIDE:
        check_type(where, tags.parts(tag)[1], wanted)


def check_type(where: str, kind: str, wanted: Wanted) -> None:
    """UserError for a type of entity that the task does not know."""
    if wanted.labels is not None:
        types = sorted({tags.parts(label)[1] for label in wanted.labels if label != tags.OUTSIDE})
        if kind not in types:
            raise unknown_label(where, kind, types)
