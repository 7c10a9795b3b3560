"""Lines to paragraphs and documents: a paragraph a line, or lines that were wrapped at a width and belong together."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

Document = list[str]

# In wrapped text, the least characters of a document: a heading between blank lines is none.
SHORTEST = 500

# What the lines of wrapped text look like. Widths in columns, of which an ideograph takes two.
_NARROWEST, _WIDEST = 50, 120
_FULL, _FULL_SHARE = 0.7, 0.75  # three quarters of the lines are nearly as wide as the widest
_SENTENCES = 0.4  # of the lines at most end with a sentence
_FEWEST_LINES = 20
_ENDS = tuple(".!?:;。！？…।۔")

_NOT_ASCII = re.compile("[^\0-\x7f]")

# Unicode blocks of scripts written without blanks between words (and of their punctuation).
_WITHOUT_BLANKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # ideographs' parts, kana
    (0x31A0, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFF65),  # full-width punctuation
    (0x20000, 0x3FFFF),
)
_DASHES, _SOFT_HYPHEN = "-\u2010\u2011\u2013\u2014", "\u00ad"


def paragraphs(lines: Iterable[str], join: bool = False) -> Document:
    """The paragraphs of a text: its lines, or with `join` what stands between blank lines."""
    if not join:
        return [line for part in lines if (line := part.strip())]
    found: Document = []
    held: list[str] = []
    for part in itertools.chain(lines, ("",)):
        if line := part.strip():
            held.append(line)
        elif held:
            found.append(_joined(held))
            held = []
    return found


def documents(lines: Iterable[str]) -> Iterator[Document]:
    """A paragraph a line; a blank line ends the document."""
    document: Document = []
    for part in lines:
        if line := part.strip():
            document.append(line)
        elif document:
            yield document
            document = []
    if document:
        yield document


def wrapped_documents(lines: Iterable[str]) -> Iterator[Document]:
    """A paragraph up to a blank line, its lines joined; two blank lines end a document of at least `SHORTEST`
    characters, so that a heading stays with its chapter."""
    held: list[str] = []
    size = blanks = 0
    for part in lines:
        line = part.strip()
        if not line:
            blanks += 1
        else:
            if blanks >= 2 and size >= SHORTEST:
                yield paragraphs(held, join=True)
                held, size = [], 0
            elif blanks and held:
                held.append("")
            held.append(line)
            size, blanks = size + len(line), 0
    if held:
        yield paragraphs(held, join=True)


def wrap_width(lines: Iterable[str]) -> int | None:
    """The width in columns at which the lines of a text were wrapped; None where a line seems to be a paragraph.

    Looked at are lines that another one follows without a blank line. Where text was wrapped, most of
    them are nearly as wide as the widest, and few end with a sentence.
    """
    stripped = [line.strip() for line in lines]
    inner = [line for line, after in itertools.pairwise(stripped) if line and after]
    if len(inner) < _FEWEST_LINES:
        return None
    widths = sorted(map(_columns, inner))
    widest = widths[int(0.95 * len(widths))]
    full = sum(_FULL * widest <= width <= 1.1 * widest for width in widths)
    ended = sum(line.rstrip("\"'”’»)」』").endswith(_ENDS) for line in inner)
    if not _NARROWEST <= widest <= _WIDEST or full < _FULL_SHARE * len(inner):
        return None
    return widest if ended <= _SENTENCES * len(inner) else None


def _columns(line: str) -> int:
    if line.isascii():
        return len(line)
    others = _NOT_ASCII.findall(line)
    return len(line) + sum(unicodedata.east_asian_width(char) in "WF" for char in others)


def _joined(lines: Sequence[str]) -> str:
    """Lines as one, with a blank where the script has them between words. A hyphen or dash at a line's end stays."""
    pieces = [lines[0]]
    for line in lines[1:]:
        before = pieces[-1]
        if before.endswith(_SOFT_HYPHEN):
            pieces[-1] = before[:-1]
        elif not (_ends_with_dash(before) or (_unspaced(before[-1]) and _unspaced(line[0]))):
            pieces.append(" ")
        pieces.append(line)
    return "".join(pieces)


def _ends_with_dash(line: str) -> bool:
    """Whether the line's last word goes on after its dash ("well-", "he said--", not "he said --")."""
    word = line.rstrip(_DASHES)
    return word != line and word != "" and not word[-1].isspace()


def _unspaced(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _WITHOUT_BLANKS)
