"""The machinery of options: config files, overrides, frozen dataclasses, errors that name the fix.

Tensor names in this package end in their shape. The letters:

    B  rows of a batch          L  positions of a row          K  positions chosen for prediction
    V  vocabulary (padded)      E  embedding width             D  width of an encoder
    F  feed-forward width       H  attention heads             P  position table    T  type table
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import math
import os
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

Spec = TypeVar("Spec")


class UserError(Exception):
    """A mistake the user can mend: the message says what was found, expected, and what to do."""

    status = 2  # exit status of the command that it ends


class UnknownConfig(UserError):
    """There is no shipped config of this name."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None when nothing is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not one of `known`: suggests the nearest and lists them all."""
    known = sorted(known)
    guess = nearest(name, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}")


def check_choice(where: str, value: str, choices: Sequence[str]) -> None:
    """Raises UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise unknown_name(f"value of {where}:", value, choices)


def check_range(where: str, value: float, interval: str) -> None:
    """Raises UserError unless `value` is in an interval such as "[0, 1)" or "(0, inf)"."""
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if above and below:
        return
    if math.isinf(high):
        expected = f"{'at least' if interval[0] == '[' else 'above'} {low:g}"
    else:
        expected = f"in {interval}"
    raise UserError(f"{where}={value} is out of range; it must be {expected}")


def from_config(cls: type[Spec], section: Mapping[str, Any], where: str) -> Spec:
    """Builds the frozen dataclass `cls` from a config section called `where`.

    Raises UserError for unknown keys (with the nearest right one), missing keys and values of
    another type.
    """
    if not isinstance(section, Mapping | ml_collections.ConfigDict):
        raise UserError(
            f"config key {where}={section!r} is no section; expected the keys of {cls.__name__}"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in section:
        if key not in fields:
            raise _unknown_key(f"{where}.{key}", [f"{where}.{name}" for name in fields])
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in section:
            values[name] = _typed(section[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(
                f"config key {where}.{name} is missing; expected {type_name(hints[name])}"
            )
    return cls(**values)


def to_dict(spec: Any) -> dict[str, Any]:
    """The dataclass as plain nested dicts and lists, ready for JSON."""
    return dataclasses.asdict(spec)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint`: ints become floats and lists tuples, nothing else converts."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        return _typed(value, next(a for a in typing.get_args(hint) if a is not type(None)), where)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_config(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = typing.get_args(hint)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) == len(value):
            pairs = enumerate(zip(value, kinds, strict=True))
            return tuple(_typed(v, kind, f"{where}[{i}]") for i, (v, kind) in pairs)
        raise UserError(
            f"config key {where}={value!r} has {len(value)} values; expected {len(kinds)}"
        )
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise UserError(f"config key {where}={value!r} is not finite; expected a number")
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    found = type(value).__name__
    raise UserError(f"config key {where}={value!r} is of type {found}; expected {type_name(hint)}")


def type_name(hint: Any) -> str:
    """A type as messages and lists of options name it."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def find_config(name: str) -> Path:
    """The file of a config given by path or by name (`small`: the one shipped with the package)."""
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.suffix != ".py" and path.name == name:
        raise UnknownConfig(str(unknown_name("config", name, shipped)))
    if path.suffix == ".py" and path.is_file():
        return path
    found = "is not a .py file" if path.is_file() else "does not exist"
    raise UserError(f"config file {name} {found}; give a path or one of: {', '.join(shipped)}")


def shipped_configs() -> dict[str, Path]:
    """Name -> file of the configs of the package (inside the wheel, or beside a source tree)."""
    here = Path(__file__).resolve().parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}


def load_config(
    name: str, overrides: Sequence[str] = (), sections: Mapping[str, type] | None = None
) -> ml_collections.ConfigDict:
    """Runs `get_config(arg)` of a config, locks it and applies `key.path=value` overrides.

    `name` is a shipped name, a `path.py`, or either followed by `:arg`. `sections`: the dataclass
    that a section becomes, which gives the types of its keys. Raises UserError for an unknown
    config, a file that is no config or fails, a mistyped key, a value of another type.
    """
    at = re.fullmatch(r"([^:]*)(?::(.*))?", name)
    if at is None or at[1] not in shipped_configs():  # whose argument may be a path.py itself
        at = re.fullmatch(r"(.*?\.py)(?::(.*))?", name) or at
    if at is None:
        raise UserError(f"config {name!r} is neither a name, a path.py nor either with :argument")
    return overridden(_run_config(find_config(at[1]), at[2]), overrides, sections)


def overridden(
    config: ml_collections.ConfigDict | Mapping[str, Any],
    overrides: Sequence[str],
    sections: Mapping[str, type] | None = None,
) -> ml_collections.ConfigDict:
    """A locked copy of the config with `key.path=value` overrides applied; `sections` as for `load_config`."""
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
    changed = ml_collections.ConfigDict(plain).lock()
    for override in overrides:
        apply_override(changed, override, sections)
    return changed


def _run_config(path: Path, arg: str | None) -> ml_collections.ConfigDict:
    what = f"config file {path}"
    module = run_file(path, what)
    if not hasattr(module, "get_config"):
        raise UserError(f"{what} has no function get_config()")
    given = [] if arg is None else [arg]
    with blamed(path, what):
        try:
            inspect.signature(module.get_config).bind(*given)
        except TypeError as error:
            told = "no argument" if arg is None else f"the argument {arg!r}"
            raise UserError(f"{what}: get_config() cannot be called with {told}: {error}") from None
        config = module.get_config(*given)
    if not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise UserError(f"{what}: get_config() returned {kind}; expected a ConfigDict")
    return config


def run_file(path: Path, what: str) -> types.ModuleType:
    """The module that a file of the user's makes; UserError, with its line, for whatever it raises."""
    name = f"electra_jax_file_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None  # true of every .py file
    module = sys.modules[name] = importlib.util.module_from_spec(
        module_spec
    )  # dataclasses look there
    with blamed(path, what):
        module_spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def blamed(path: Path, what: str) -> Iterator[None]:
    """Inside, an error that the code in a user's file raises is a UserError with its line; `what` begins it."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(_fault(path, what, error)) from error


def _fault(path: Path, what: str, error: BaseException) -> str:
    """Where in the file, and what: one line."""
    # Python names the file by its absolute path, however it was given.
    file, found = os.path.abspath(path), traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in found if os.path.abspath(frame.filename) == file]
    told: object = error
    if isinstance(error, SyntaxError) and os.path.abspath(error.filename or "") == file:
        lines.append(error.lineno)
        told = error.msg  # without the place
    where = f"{what}, line {lines[-1]}" if lines else what
    try:
        said = " ".join(str(told).split())
    except Exception:  # noqa: BLE001 - an error that cannot say what it is
        said = ""
    return f"{where}: {type(error).__name__}{': ' if said else ''}{said}"


def apply_override(
    config: ml_collections.ConfigDict, override: str, sections: Mapping[str, type] | None = None
) -> None:
    """Applies one `section.key=value` to a locked config.

    The type is that of the field in the section's dataclass, if `sections` has it, else the old
    value's.
    """
    path, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no '='; write --config.section.key=value")
    *parents, leaf = path.split(".")
    node: Any = config
    for key in parents:
        if not isinstance(node, ml_collections.ConfigDict) or key not in node:
            raise _unknown_key(path, list(_paths(config)))
        node = node[key]
    if not isinstance(node, ml_collections.ConfigDict) or leaf not in node:
        raise _unknown_key(path, list(_paths(config)))
    if isinstance(node[leaf], ml_collections.ConfigDict):
        keys = ", ".join(_paths(node[leaf], f"{path}."))
        raise UserError(f"config key {path} is a section; set one of its keys: {keys}")
    hint = _declared(sections or {}, path)
    node[leaf] = (
        _parse(text, node[leaf], path) if hint is None else _parse_as(text, hint, node[leaf], path)
    )


def _paths(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _unknown_key(path: str, known: Sequence[str]) -> UserError:
    """Suggests the key of this name in another section, else the one that looks most like it."""
    leaf = path.rpartition(".")[2]
    elsewhere = [k for k in known if k.rpartition(".")[2] == leaf]
    section = path.rpartition(".")[0]
    here = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    near = nearest(leaf, here)
    guess = elsewhere[0] if elsewhere else here[near] if near else nearest(path, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    sections = sorted({k.partition(".")[0] for k in known})
    listed = f"Known: {', '.join(here.values())}" if here else f"Sections: {', '.join(sections)}"
    return UserError(f"unknown config key {path!r}.{hint} {listed}")


def _declared(sections: Mapping[str, type], path: str) -> Any:
    """The type of the field that a key becomes, or None where that is not known."""
    section, _, leaf = path.rpartition(".")
    return typing.get_type_hints(sections[section]).get(leaf) if section in sections else None


def _parse_as(text: str, hint: Any, old: Any, where: str) -> Any:
    """`text` as the type `hint`: "1" is a text where texts are wanted, "None" nothing where that is
    allowed, and one value a tuple of one."""
    either = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if either else (hint,)
    if old is None and not text.strip():
        raise UserError(f"config key {where} is given nothing; expected {type_name(hint)}")
    if type(None) in kinds and text.strip() == "None":
        return None
    kind = next(k for k in kinds if k is not type(None))
    is_tuple = typing.get_origin(kind) is tuple
    texts = kind is str or (is_tuple and set(typing.get_args(kind)) <= {str, Ellipsis})
    if texts and not is_tuple:
        return _quoted(text, str) or text if old is None else text
    if texts:
        bare = re.fullmatch(r"\s*[\[(](.*)[\])]\s*", text, re.DOTALL)
        words = (word.strip() for word in (bare[1] if bare else text).rstrip(", ").split(","))
        found = _quoted(text, tuple) or tuple(_quoted(word, str) or word for word in words)
        return type(old)(found) if isinstance(old, list) else found
    if is_tuple and "," not in text and not text.strip().startswith(("(", "[")):
        text += ","
    value = _parse(text, old, where)
    return _typed(value, hint, where) if old is None else value


def _quoted(text: str, kind: type) -> Any:
    """A text in Python's quotes, or a tuple or list of such; None for anything else."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(value, str) and kind is str:
        return value
    if isinstance(value, (tuple, list)) and kind is tuple:
        return tuple(value) if all(isinstance(word, str) for word in value) else None
    return None


def _parse(text: str, old: Any, where: str) -> Any:
    """`text` as the type of `old` (1e4 may be an int; a tuple needs no brackets).

    Where `old` is None, what is no Python value is a string, or with commas a tuple of strings.
    """
    if isinstance(old, str):
        return text
    expected = f"expected {'a value' if old is None else type(old).__name__}, such as {old!r}"
    if isinstance(old, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UserError(f"config key {where}={text!r}: expected true or false")
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if old is None and text.strip():
            words = tuple(word.strip() for word in text.split(","))
            return words if len(words) > 1 else words[0]
        raise UserError(f"config key {where}={text!r}: {expected}") from None
    if type(value) is float and not math.isfinite(value):
        raise UserError(f"config key {where}={text!r} is not finite; {expected}")
    if type(old) is float and type(value) is int:
        return float(value)
    if type(old) is int and type(value) is float and value.is_integer():
        return int(value)
    if isinstance(old, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(old)(value)
    if old is not None and type(value) is not type(old):
        raise UserError(
            f"config key {where}={text!r} is of type {type(value).__name__}; {expected}"
        )
    return value


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by "section.key"."""
    out: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
