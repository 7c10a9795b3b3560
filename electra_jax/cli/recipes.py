"""The recipes of the command line: their names with a line each, and what every key of one means."""

import ast
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from electra_jax import userfile
from electra_jax.spec import (
    UnknownConfig,
    UserError,
    flat,
    load_config,
    overridden,
    shipped_configs,
)


def load(
    name: str, overrides: Sequence[str], command: str, later: Sequence[str] = ()
) -> ConfigDict:
    """`spec.load_config`; where there is no recipe of this name, the error lists those for the command.

    A recipe gets the options that it leaves out where an override sets one. A user's own objective that it names may
    lie beside it. `later`: overrides that the caller applies.
    """
    if not name:
        raise UserError(f"--config has no name; the recipes are:\n{listed(command)}")
    try:
        config = load_config(name)
    except UnknownConfig as error:
        raise UserError(f"{error}\n{listed(command)}") from None
    if "tasks" in config:
        raise UserError(
            f"--config {name} is for electra-jax finetune; here one of:\n{listed(command)}"
        )
    own = _with_own_objective(name, config, [*overrides, *later])
    return overridden(_with_left_out(own, [*overrides, *later]), overrides)


def _with_left_out(
    config: ConfigDict | dict[str, Any], overrides: Sequence[str]
) -> ConfigDict | dict[str, Any]:
    """The config with the options that it leaves out, where an override may name one of them."""
    there = flat(config.to_dict() if isinstance(config, ConfigDict) else config)
    if all(o.partition("=")[0] in there for o in overrides):
        return config  # what follows imports the training code, which takes seconds
    from electra_jax.pretrain import options

    plain = config.to_dict() if isinstance(config, ConfigDict) else config
    return options.complete(options.with_own_options(plain, overrides))


def _with_own_objective(
    recipe: str, config: ConfigDict, overrides: Sequence[str]
) -> ConfigDict | dict[str, Any]:
    objective = config.get("objective")
    named = [o.partition("=")[2] for o in overrides if o.startswith("objective.name=")]
    own = objective.get("name") if isinstance(objective, ConfigDict) else None
    if not any(map(userfile.is_file, [own, *named])):
        return config  # what follows imports the training code, which takes seconds
    if isinstance(own, str) and userfile.is_file(own) and not Path(own).exists():
        beside = Path(recipe.partition(".py")[0]).parent / own
        if beside.is_file():
            with config.unlocked():
                config.objective.name = str(beside)
    from electra_jax.pretrain import options

    return options.with_own_options(config, overrides)


def listed(command: str) -> str:
    """A line for each shipped recipe whose first lines start it by this command: its name and what it is."""
    found = {}
    for name, path in shipped_configs().items():
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if f"electra-jax {command} --config {name}" in said:
            found[name] = said.splitlines()[0]
    width = max(map(len, found), default=0)
    return "\n".join(f"  {name:{width}}  {line}" for name, line in found.items())


def described(name: str, overrides: Sequence[str], command: str) -> str:
    """A line for each key of a recipe: key, type, value, and what it means."""
    config = load(name, overrides, command).to_dict()
    from electra_jax.pretrain import described, options

    options.run_spec(config)
    rows = [(key.name, key.type, _shown(key.value), key.sentence) for key in described.keys(config)]
    name_, type_, value = (max(len(row[i]) for row in rows) for i in range(3))
    return "\n".join(f"{n:{name_}}  {t:{type_}}  {v:{value}}  {s}" for n, t, v, s in rows)


def _shown(value: object) -> str:
    """As it is written behind `--config.section.key=`."""
    if value is dataclasses.MISSING:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(tuple(value)) if isinstance(value, list) else str(value) if value != "" else "''"
