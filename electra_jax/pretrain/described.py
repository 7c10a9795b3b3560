"""What every key of a run's config means: its type and sentence, as the option dataclasses say them.

A field's sentence is the comment beside it, so that what a user reads is what stands in the code.
"""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from electra_jax import userfile
from electra_jax.objective import registry, sentence
from electra_jax.pretrain.options import SECTIONS, SPECS, PhaseSpec, complete
from electra_jax.spec import type_name


class Key(NamedTuple):
    """A key of a config as a user writes it."""

    name: str  # section.key
    type: str
    value: Any
    sentence: str


def keys(config: Mapping[str, Any]) -> list[Key]:
    """Every key of a config that `options.run_spec` accepts, those that it leaves out and those of phases included.

    The value of a key of phases is its default, dataclasses.MISSING where it has none.
    """
    found, full = [], complete(config)
    for section in SECTIONS:
        types, sentences = _section(section, full["objective"]["name"])
        values = full[section]
        found += [
            Key(f"{section}.{name}", types[name], values[name], sentences[name])
            for name in types
            if name in values
        ]
    types, sentences = _of([PhaseSpec])
    phase = [
        Key(f"train.phases[].{f.name}", types[f.name], f.default, sentences[f.name])
        for f in dataclasses.fields(PhaseSpec)
    ]
    at = 1 + [key.name for key in found].index("train.phases")
    return [*found[:at], *phase, *found[at:]]


def _section(name: str, objective: str) -> tuple[dict[str, str], dict[str, str]]:
    """Types and sentences by key; of all objectives together, since a recipe holds the options of each.

    Where several have an option, it is described as in this one, else as in the first.
    """
    if name != "objective":
        return _of([SPECS[name]])
    own = [objective] if userfile.is_file(objective) else []
    classes = [sentence.Options, *map(registry.options_of, [*registry.KNOWN, *own])]
    types, sentences = _of(classes)
    for each in (*reversed(registry.KNOWN), objective):
        sentences |= comments(registry.options_of(each))
    known = " | ".join(registry.KNOWN)
    said = {"name": f"what is learned: {known} | the path of a file of your own"}
    return {"name": "str"} | types, sentences | said


def _of(classes: Sequence[type]) -> tuple[dict[str, str], dict[str, str]]:
    types: dict[str, str] = {}
    sentences: dict[str, str] = {}
    for cls in classes:
        hints = typing.get_type_hints(cls)
        types |= {f.name: _short(hints[f.name]) for f in dataclasses.fields(cls)}
        sentences |= comments(cls)
    return types, sentences


def _short(hint: Any) -> str:
    """The type without the modules that its parts come from."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", type_name(hint))


def comments(cls: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, those of its bases included; "" where there is none."""
    found = {field.name: "" for field in dataclasses.fields(cls)}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        said = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                found[node.target.id] = " ".join(said[line] for line in lines if line in said)
    return found
