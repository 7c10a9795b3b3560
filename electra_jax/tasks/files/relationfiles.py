"""Relations between two entities of a text: the entities are marked by words put around them."""

import dataclasses
from typing import Any

from electra_jax.spec import UserError
from electra_jax.tasks.examples import TextExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.wanted import Wanted, written

Names = tuple[str, ...]
Markers = tuple[str, str, str, str]

# Punctuation that every vocabulary has as words of its own (Zhou and Chen, 2021, "entity marker
# (punct)"): head @ ... @, tail # ... #. New words such as [E1] would need new embeddings.
MARKERS: Markers = ("@", "@", "#", "#")


@dataclasses.dataclass(frozen=True)
class Relations:
    """Rows with a text, or its tokens, and two spans [start, stop) in characters or in tokens.

    A span is a list of two numbers, or an object with "pos" (OpenNRE) or "start" and "end". Tokens
    are joined by spaces. `markers` are the words before and after the head and the tail.
    """

    text: Names = ("text", "sentence")
    tokens: Names = ("tokens", "token")
    head: Names = ("head", "h", "subject")
    tail: Names = ("tail", "t", "object")
    label: Names = ("label", "relation")
    id: Names = ("id",)
    markers: Markers = MARKERS

    def read(self, path: str, wanted: Wanted) -> list[TextExample]:
        """The marked texts of a file; UserError names the line that is at fault."""
        found = []
        for number, (line, row) in enumerate(tables.rows(path)):
            where = f"{path}:{line}"
            tokens = next((row[name] for name in self.tokens if name in row), None)
            if tokens is None:
                column = tables.column(path, row, (*self.text, *self.tokens), "--text")
                text = wanted.text(row[column], where, "text")
                units = list(text)
                joint = ""
            else:
                units, joint = _tokens(tokens, where), " "
            spans = [
                _span(where, row, names, len(units), side)
                for names, side in ((self.head, "subj"), (self.tail, "obj"))
            ]
            label: str | float | None = None
            if wanted.labelled or any(name in row for name in self.label):
                said = written(where, row[tables.column(path, row, self.label, "--label")])
                label = wanted.gold(where, said)
            name = next((name for name in self.id if name in row), None)
            marked = mark(units, joint, spans[0], spans[1], self.markers)
            found.append(TextExample(str(row[name] if name else number), marked, None, label))
        wanted.tell_strange(path)
        if not found:
            raise UserError(f"{path} has no example")
        return found


def mark(
    units: list[str], joint: str, head: tuple[int, int], tail: tuple[int, int], markers: Markers
) -> str:
    """The text with marker words around two spans [start, stop) of its units.

    One span may lie inside the other; where two markers meet, the inner one is nearer the words.
    """
    begins = [(head[0], -head[1], markers[0]), (tail[0], -tail[1], markers[2])]
    ends = [(head[1], -head[0], markers[1]), (tail[1], -tail[0], markers[3])]
    pieces: list[str] = []
    for place in range(len(units) + 1):
        closing = [word for at, _, word in sorted(ends, key=lambda e: e[1]) if at == place]
        opening = [word for at, _, word in sorted(begins, key=lambda b: b[1]) if at == place]
        if joint:
            pieces += closing + opening + units[place : place + 1]
        else:
            pieces += [f" {word}" for word in closing] + [" "] * bool(closing)
            pieces += [f" {word} " for word in opening] + units[place : place + 1]
    return joint.join(pieces).strip()


def _tokens(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(t, str) for t in value):
        raise UserError(f"{where}: 'tokens' is no list of texts")
    return value


def _span(where: str, row: tables.Row, names: Names, length: int, side: str) -> tuple[int, int]:
    """[start, stop) of one entity. TACRED has subj_start and subj_end, the last token included."""
    said: Any
    if f"{side}_start" in row and f"{side}_end" in row:
        start, last = row[f"{side}_start"], row[f"{side}_end"]
        said = [start, last + 1 if type(last) is int else last]
    else:
        said = row[tables.column(where, row, names)]
    if isinstance(said, dict):
        said = said.get("pos", [said.get("start"), said.get("end")])
    if (
        not isinstance(said, list)
        or len(said) != 2
        or not all(type(place) is int for place in said)
        or not 0 <= said[0] < said[1] <= length
    ):
        raise UserError(
            f"{where}: {names[0]!r} is {said!r}; expected [start, stop) inside the {length} "
            "characters or tokens"
        )
    return said[0], said[1]
