"""The recipes of the command line: their names with a line each, and what every key of one means."""

import ast
import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from electra_jax.spec import UnknownConfig, UserError, load_config, shipped_configs


def load(name: str, overrides: Sequence[str], command: str) -> ConfigDict:
    """`spec.load_config`; where there is no recipe of this name, the error lists those for the command."""
    if not name:
        raise UserError(f"--config has no name; the recipes are:\n{listed(command)}")
    try:
        config = load_config(name, overrides)
    except UnknownConfig as error:
        raise UserError(f"{error}\n{listed(command)}") from None
    if "tasks" in config:
        raise UserError(
            f"--config {name} is for electra-jax finetune; here one of:\n{listed(command)}"
        )
    return config


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
