"""English that every Python carries: the language reference and the docstrings of the standard library."""

import ast
import inspect
import random
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

from electra_jax.spec import UserError

Document = list[str]

# Not prose about Python, or there on some machines only.
_LEFT_OUT = {
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
_LEFT_OUT |= {"dist-packages", "site-packages", "config", "_sysconfigdata"}
_SHORTEST = 8  # words of a paragraph
_PROSE = 0.75  # share of letters and spaces below which a paragraph is code, a table or grammar


def documents(seed: int = 0) -> list[Document]:
    """Paragraphs by document (a topic, a module), in an order drawn by `seed`; no paragraph occurs twice.

    Raises UserError where this Python came without both sources.
    """
    seen: set[str] = set()
    found = []
    for text in (*_topics(), *_docstrings()):
        document = []
        for paragraph in _paragraphs(text):
            if paragraph not in seen:
                seen.add(paragraph)
                document.append(paragraph)
        if document:
            found.append(document)
    if not found:
        raise UserError(
            "this Python came without its documentation and the sources of its standard library; "
            "give text of your own: electra-jax quickstart --input 'my/*.txt'"
        )
    random.Random(seed).shuffle(found)
    return found


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return
    for name in sorted(topics):
        yield topics[name]


def _docstrings() -> Iterator[str]:
    """The docstrings of one module after the other; modules are parsed, not imported."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part in _LEFT_OUT or part.startswith("_sysconfigdata") for part in parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old escapes in old modules
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # templates and broken links in patched Pythons
            continue
        found = [
            inspect.cleandoc(doc)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and (doc := ast.get_docstring(node, clean=False))
        ]
        yield "\n\n".join(found)


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of prose, each on one line."""
    for block in re.split(r"\n\s*\n", text.expandtabs()):
        lines = textwrap.dedent(block).strip("\n").splitlines()
        if any(line.startswith((">>>", "  >>>")) for line in lines):
            continue
        paragraph = " ".join(" ".join(lines).split())
        letters = sum(c.isalpha() or c == " " for c in paragraph)
        code = block.startswith("   ") and not paragraph.endswith((".", ":", "!", "?"))
        if len(paragraph.split()) >= _SHORTEST and letters >= _PROSE * len(paragraph) and not code:
            yield paragraph
