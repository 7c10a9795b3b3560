"""The config.json of a model folder: of which family it is, and what it says."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from electra_jax import records
from electra_jax.convert import electra_config, modern_config
from electra_jax.convert.entries import Options, Shape
from electra_jax.convert.names import BORDERS
from electra_jax.model.options import ELECTRA, MODERN
from electra_jax.objective.export import DETECTION, MASKED_LM
from electra_jax.spec import UserError
from electra_jax.text.special import SpecialIds

CONFIG = "config.json"
SPELLINGS: dict[str, ModuleType] = {ELECTRA: electra_config, MODERN: modern_config}

# The most of each that is taken at its word: what a config asks for beyond these is a mistake or worse.
MOST = {"layers": 1000, "heads": 1024, "types": 1024, "positions": 2**20, "vocab": 2**24}
MOST_OTHERWISE = 2**18


def family_of(config: Mapping[str, Any]) -> str:
    """The family by its `model_type`; ELECTRA's where it is another, which `parse` complains of."""
    types = {border.model_type: family for family, border in BORDERS.items()}
    said = config.get("model_type")
    return types.get(said, ELECTRA) if isinstance(said, str) else ELECTRA


def parse(path: Path, config: Mapping[str, Any], role: str | None) -> tuple[Shape, Options]:
    """What a config says. `role`: what the model must be for, by the class that ELECTRA has for it.

    Raises UserError, naming every problem, for a model that is not computed here.
    """
    family = family_of(config)
    spelling = SPELLINGS[family]
    problems = _fixed(config, spelling)
    _check_role(path, config, role, problems)
    numbers = {}
    for field, (key, default) in spelling.DIMENSIONS.items():
        value = numbers[field] = config.get(key, default)
        most = MOST.get(field, MOST_OTHERWISE)
        if type(value) is not int or not 1 <= value <= most:
            expected = f"expected a positive integer of at most {most:,}"
            problems.append(f"{key} is {records.short(value)}, {expected}")
    if not problems and numbers["width"] % numbers["heads"]:
        problems.append(
            f"hidden_size {numbers['width']} is not a multiple of "
            f"num_attention_heads {numbers['heads']}"
        )
    numbers |= spelling.own(config, problems)
    numbers.setdefault("embedding", numbers["width"])
    rates = _rates(config, spelling, problems)
    notes = _notes(path, config, problems)
    if problems:
        raise UserError(
            f"{path / CONFIG} does not describe a model this program computes:\n  "
            + "\n  ".join(problems)
        )
    return Shape(**numbers), Options(**rates, notes=notes)


def _fixed(config: Mapping[str, Any], spelling: ModuleType) -> list[str]:
    types = " or ".join(repr(border.model_type) for border in BORDERS.values())
    return [
        f"{key} is {records.short(config.get(key, default))}, expected "
        f"{types if key == 'model_type' else repr(value)}"
        for key, value, default in spelling.FIXED
        if config.get(key, default) != value
    ]


def _check_role(
    path: Path, config: Mapping[str, Any], role: str | None, problems: list[str]
) -> None:
    family, named = family_of(config), architectures(path, config)
    if role is None or not named or (family == MODERN and role != MASKED_LM):
        return  # of a ModernBERT of any class the encoder is taken
    expected = BORDERS[family].classes[role]
    if expected not in named:
        problems.insert(0, f"architectures is {named!r}, expected {expected!r}")


def _rates(
    config: Mapping[str, Any], spelling: ModuleType, problems: list[str]
) -> dict[str, float]:
    rates = {}
    for field, (key, usual) in spelling.RATES.items():
        rate = config.get(key, usual)
        if type(rate) not in (int, float) or not 0 <= rate < 1:
            problems.append(f"{key} is {records.short(rate)}, expected a number in [0, 1)")
        else:
            rates[field] = float(rate)
    return rates


def _notes(path: Path, config: Mapping[str, Any], problems: list[str]) -> dict[str, Any] | None:
    notes = config.get("electra_jax")
    if notes is not None and not isinstance(notes, dict):
        problems.append(f"electra_jax is {records.short(notes)}, expected a JSON object")
    elif notes is not None:
        kinds = {"tying": str | None, "energy": bool | None}
        records.check(notes, kinds, f"{path / CONFIG}, electra_jax")
    return notes


def architectures(path: Path, config: Mapping[str, Any]) -> list[str]:
    """The classes that a config names, often one; empty where it names none."""
    records.check(dict(config), {"architectures": list[str] | None}, path / CONFIG)
    return config.get("architectures") or []


def role_of(config: Mapping[str, Any], named: str, asked: str | None) -> str:
    """What a folder of this class is for; of a family whose class names do not say it, its config does."""
    family = family_of(config)
    found = str(SPELLINGS[family].role_of(named, config)) if named else ""
    return found or asked or ""


def of(shape: Shape, options: Options, role: str, special: SpecialIds) -> dict[str, Any]:
    """The config.json of a model of this role, or of this class of transformers."""
    return dict(SPELLINGS[shape.family].write(shape, options, role, special))


def is_detection(role: str) -> bool:
    """Whether a model of this role has the head of a discriminator."""
    return role == DETECTION
