"""WikiExtractor's output: articles between `<doc ...>` and `</doc>`, or as JSON records.

Its text form begins every article with the title, its JSON form (of version 3) does not; here the
title is the first paragraph of both, once. A line is a paragraph, also where lines of wrapped text
are joined: WikiExtractor wraps none. Articles without text, such as redirects, are passed over.
"""

import collections
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from electra_jax.spec import UserError

# The title stands last, where it is given. It is not escaped: it may hold quotation marks.
_OPEN = re.compile(r'\s*<doc id="[^"]*"(?: (?!title=)\w+="[^"]*")*(?: title="(.*)")?>\s*')
_CLOSE = "</doc>"

# The keys of a JSON record, the second since version 3, which escapes three characters of the text.
_KEYS = ({"id", "url", "title", "text"}, {"id", "revid", "url", "title", "text"})
_ESCAPED = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&"))  # the last one last


def looks_like(lines: Iterable[str]) -> bool:
    """Whether the first line with text opens an article."""
    first = next((line for line in lines if line and not line.isspace()), "")
    return _OPEN.fullmatch(first) is not None


def articles(
    path: str, lines: Iterable[str], skipped: "collections.Counter[str]"
) -> Iterator[list[str]]:
    """Yields the lines of every article, its title first; those without text are counted in `skipped`.

    Raises UserError, with the line, for text outside of articles and for one that is not closed.
    """
    title, opened = "", 0
    body: list[str] = []
    for number, line in enumerate(lines, 1):
        opening = _OPEN.fullmatch(line)
        if opened and line.strip() == _CLOSE:
            found = _titled(title, body)
            opened, body = 0, []
            if found is None:
                skipped["empty_articles"] += 1
            else:
                yield found
        elif opening is not None and not opened:
            title, opened = _unescaped(opening[1] or ""), number
        elif opening is not None:
            break
        elif opened:
            body.append(_unescaped(line))
        elif line and not line.isspace():
            raise UserError(
                f"{path}:{number}: found text outside of <doc ...> and </doc>, in a file that begins as "
                "WikiExtractor's output; expected articles alone"
            )
    if opened:
        raise UserError(
            f"{path}:{opened}: the article that begins here has no </doc>; the file is cut short or "
            "damaged: extract it again"
        )


def is_record(record: Mapping[str, Any]) -> bool:
    """Whether a JSON object with a text has the keys of WikiExtractor's articles, no others."""
    return isinstance(record["title"], str) if set(record) in _KEYS else False


def from_record(record: Mapping[str, Any]) -> str | None:
    """The text of an article, its title as first line; None where there is only a title."""
    text, title = record["text"], record["title"]
    if "revid" in record:
        text, title = _unescaped(text), _unescaped(title)
    found = _titled(title, text.split("\n"))
    return None if found is None else "\n".join(found)


def _titled(title: str, lines: list[str]) -> list[str] | None:
    """The article with its title first, where that is not so already; None for a bare title.

    A blank line follows each: they are paragraphs, none of which goes on in the next line.
    """
    body = [line for line in lines if line.strip()]
    if title and body and body[0].strip() == title.strip():
        del body[0]
    if not body:
        return None
    return [part for line in (title, *body) if line for part in (line, "")]


def _unescaped(text: str) -> str:
    if "&" in text:
        for escaped, char in _ESCAPED:
            text = text.replace(escaped, char)
    return text
