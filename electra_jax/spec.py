"""The machinery of options: config files, overrides, frozen dataclasses, and errors that name the fix.

Tensor names in this package end in their shape. The letters:

    B  rows of a batch          L  positions of a row          K  positions chosen for prediction
    V  vocabulary (padded)      E  embedding width             D  width of an encoder
    F  feed-forward width       H  attention heads             P  position table    T  type table
"""

import ast
import dataclasses
import difflib
import importlib.util
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_collections

Spec = TypeVar("Spec")


class UserError(Exception):
    """A mistake the user can mend; the message says what was found, what was expected, what to do."""


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


def from_config(cls: type[Spec], section: Mapping[str, Any], where: str) -> Spec:
    """Builds the frozen dataclass `cls` from a config section called `where`.

    Raises UserError for unknown keys (with the nearest right one), missing keys and values of another type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in section:
        if key not in fields:
            raise unknown_name(f"config key {where}.", str(key), fields)
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in section:
            values[name] = _typed(section[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"config key {where}.{name} is missing; expected {hints[name]}")
    return cls(**values)


def to_dict(spec: Any) -> dict[str, Any]:
    """The dataclass as plain nested dicts and lists, ready for JSON."""
    return dataclasses.asdict(spec)


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
        origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_config(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, (tuple, list)):
        return tuple(_typed(v, typing.get_args(hint)[0], f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise UserError(f"config key {where}={value!r} is a {type(value).__name__}; expected {name}")


def find_config(name: str) -> Path:
    """The file of a config given by path or by name (`small` finds the one shipped with the package)."""
    path = Path(name)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise UserError(f"config file {name} does not exist; give a path or one of: {', '.join(shipped_configs())}")
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    raise unknown_name("config", name, shipped)


def shipped_configs() -> dict[str, Path]:
    """Name -> file of the configs that came with the package (in the wheel, or beside a source tree)."""
    here = Path(__file__).resolve().parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    return {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}


def load_config(name: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Runs `get_config(arg)` of a config (`name`, `path.py` or either with `:arg`) and applies `key.path=value` overrides.

    Raises UserError for an unknown config, a file without `get_config`, a mistyped key or a value of another type.
    """
    base, _, arg = name.partition(":")
    path = find_config(base)
    module_spec = importlib.util.spec_from_file_location(f"electra_jax_config_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {path} has no function get_config()")
    config = module.get_config(arg) if arg else module.get_config()
    config.lock()
    for override in overrides:
        apply_override(config, override)
    return config


def apply_override(config: ml_collections.ConfigDict, override: str) -> None:
    """Applies one `section.key=value` to a locked config; the value must have the type of the one it replaces."""
    path, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"override {override!r} has no '='; write --config.section.key=value")
    *parents, leaf = path.split(".")
    node: Any = config
    for i, key in enumerate([*parents, leaf]):
        if not isinstance(node, ml_collections.ConfigDict) or key not in node:
            known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
            raise unknown_name(f"config key {'.'.join([*parents, leaf][:i])}.", key, known)
        if i < len(parents):
            node = node[key]
    node[leaf] = _parse(text, node[leaf], f"config.{path}")


def _parse(text: str, old: Any, where: str) -> Any:
    if isinstance(old, str):
        return text
    if isinstance(old, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(f"{where}={text!r} is not a {type(old).__name__}") from None
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, int) and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(old, tuple) and isinstance(value, (tuple, list)):
        return tuple(value)
    if old is not None and (type(value) is not type(old)):
        raise UserError(f"{where}={text!r} is a {type(value).__name__}; expected {type(old).__name__}")
    return value
