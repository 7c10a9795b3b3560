"""Objectives by name: those of the package, and a user's own by the path of its file."""

import dataclasses
import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from electra_jax import userfile
from electra_jax.model.electra import Dimensions, ModelSpec
from electra_jax.objective import checked, sentence
from electra_jax.objective.export import Export
from electra_jax.objective.protocol import Objective
from electra_jax.quantities import Range
from electra_jax.spec import UserError, from_config, unknown_name
from electra_jax.text.special import SpecialIds

# Name -> its file here. Of those whose first model is of one class of transformers, the first takes what is imported.
KNOWN = {
    name: f"electra_jax.objective.{name}"
    for name in (
        "electra",
        "mlm",
        "electra_15",
        "replace_mlm",
        "all_tokens_mlm",
        "electric",
        "adversarial",
        "frozen",
        "two_stage",
    )
}
OWN = "objective file"
# What a user's file has to have; it may have Options, a frozen dataclass, and RANGES of its numbers.
MEMBERS = {"make": "a function make(options, dims, special, seq_len) that returns the objective"}


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The config section of an objective without options."""


def check_name(section: Any) -> str:
    """The name of the objective in a config section; UserError where it is unknown, or the section is none.

    A name that ends in .py is the path of a user's file.
    """
    if not isinstance(section, Mapping | ConfigDict):
        raise UserError(
            f"config key objective={section!r} is no section; expected a name and options"
        )
    name, known = section.get("name"), ", ".join(sorted(KNOWN))
    if name is None:
        raise UserError(f"config key objective.name is missing; expected one of: {known}")
    if not userfile.is_file(name) and (not isinstance(name, str) or name not in KNOWN):
        raise unknown_name("objective", str(name), KNOWN)
    return name


def module(name: str) -> ModuleType:
    """The module of an objective; UserError for a user's file that is not there, raises or lacks a member."""
    if userfile.is_file(name):
        return _loaded(name, digest(name))
    if name not in KNOWN:
        raise unknown_name("objective", name, KNOWN)
    return importlib.import_module(KNOWN[name])


def digest(name: str) -> str:
    """SHA-256 of a user's file; empty for an objective of the package, and where there is no file."""
    path = Path(name)
    there = userfile.is_file(name) and path.is_file()
    return hashlib.sha256(path.read_bytes()).hexdigest() if there else ""


@functools.lru_cache
def _loaded(name: str, digest: str) -> ModuleType:
    """The file's module, run once for each content."""
    made = userfile.load(name, OWN, MEMBERS)
    options = getattr(made, "Options", NoOptions)
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise userfile.wrong(
            f"{OWN} {name}", "Options", "a frozen dataclass", userfile.described(options)
        )
    ranges = getattr(made, "RANGES", {})
    if not isinstance(ranges, Mapping) or not all(isinstance(x, Range) for x in ranges.values()):
        expected = "a dict: option -> Range (electra_jax.quantities)"
        raise userfile.wrong(f"{OWN} {name}", "RANGES", expected, userfile.described(ranges))
    return made


def options_of(name: str) -> type:
    """The dataclass of an objective's options."""
    return getattr(module(name), "Options", NoOptions)


def completed(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with the defaults of its objective's options that it lacks: as JSON gives them back."""
    name = str(section.get("name"))
    if not userfile.is_file(name) and name not in KNOWN:
        return dict(section)  # refused elsewhere
    section = of_all() | dict(section)
    found = {f.name: f.default for f in dataclasses.fields(options_of(name))}
    plain = {key: list(x) if isinstance(x, tuple) else x for key, x in found.items()}
    return {key: x for key, x in plain.items() if x is not dataclasses.MISSING} | dict(section)


def of_all() -> dict[str, Any]:
    """The defaults of the options that go with every objective."""
    return {f.name: f.default for f in dataclasses.fields(sentence.Options)}


def make(
    section: Mapping[str, Any], model: ModelSpec, vocab_size: int, special: SpecialIds, seq_len: int
) -> Objective:
    """Builds the objective a config section names, for data of this vocabulary and length.

    The section may keep options that only other objectives know, so that `--config.objective.name=mlm` is all it
    takes to train a recipe with another objective; a key that none knows is a UserError. A user's own objective is
    checked, without compiling anything, before it is returned.
    """
    name = check_name(section)
    options = {key: value for key, value in section.items() if key != "name"}
    own = _fields(name)
    foreign = set[str]().union(*map(_fields, KNOWN)) - own
    options = {key: value for key, value in options.items() if key not in foreign}
    shared = {key: options.pop(key) for key in of_all() if key in options and key not in own}
    beside: Any = from_config(sentence.Options, shared, "objective")
    dims = Dimensions(model, vocab_size)
    return sentence.beside(_alone(name, options, dims, special, seq_len), beside, dims, special)


def _alone(
    name: str, options: Mapping[str, Any], dims: Dimensions, special: SpecialIds, seq_len: int
) -> Objective:
    """The objective without one beside it."""
    made = module(name)
    if not userfile.is_file(name):
        spec: Any = from_config(options_of(name), options, "objective")
        return made.make(spec, dims, special, seq_len)
    what = f"{OWN} {name}"
    with userfile.calling(name, what, "Options", "a frozen dataclass that takes these values"):
        spec = from_config(options_of(name), options, "objective")
    with userfile.calling(name, what, "make", MEMBERS["make"]):
        found = made.make(spec, dims, special, seq_len)
    tried = (name, digest(name), json.dumps(options, sort_keys=True), dims, special, seq_len)
    if tried not in _CHECKED:
        checked.check(found, name, what, seq_len)
        _CHECKED.add(tried)
    return found


_CHECKED: set[Any] = set()  # what has been found right: it is asked for many times a run


def exports(name: str, dims: Dimensions) -> tuple[Export, ...]:
    """The models that an objective of the package leaves behind, whatever its options."""
    return module(name).exports(dims)


def that_exports(hf_class: str, dims: Dimensions) -> str:
    """The objective of the package whose first model is of this class of transformers."""
    return next(name for name in KNOWN if exports(name, dims)[0].hf_class == hf_class)


def numbers(name: str) -> Callable[[Dimensions], Mapping[str, Any]]:
    """The numbers that fix an objective's parameters beside the full-size encoder's, by names that a user knows."""
    return getattr(module(name), "numbers", lambda dims: {})


def clashes(section: Mapping[str, Any]) -> list[tuple[Sequence[str], str]]:
    """The keys ("objective.key") that exclude each other, and a sentence on them."""
    name, expected = section["name"], "(section) -> a list of (keys, a sentence)"
    asked: Any = getattr(module(name), "clashes", lambda section: [])
    with userfile.calling(name, f"{OWN} {name}", "clashes", expected):
        return [([f"objective.{key}" for key in keys], said) for keys, said in asked(section)]


def ranges(name: str | None = None) -> dict[str, Range]:
    """The range of every number of a config's section `objective`, by "objective.key"."""
    names = [*KNOWN, *([name] if name and userfile.is_file(name) else [])]
    found = {f"objective.{key}": x for key, x in sentence.RANGES.items()}
    for each in names:
        found |= {f"objective.{key}": x for key, x in getattr(module(each), "RANGES", {}).items()}
    return found


def _fields(name: str) -> set[str]:
    return {f.name for f in dataclasses.fields(options_of(name))}
