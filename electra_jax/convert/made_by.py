"""The commands that make a model again, told from what data and run have recorded, without anybody's folders."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from electra_jax.pretrain.options import complete
from electra_jax.spec import UserError, flat, load_config, shipped_configs
from electra_jax.workdir import changes

# What `prepare` does without a flag, by the names under which a fingerprint has its options.
_USUAL = {
    "segments": "pair",
    "overflow": "carry",
    "text_key": "text",
    "valid_fraction": 0.01,
    "seed": 0,
}


def prepare(info: Mapping[str, Any]) -> str:
    """`electra-jax prepare` with the inputs and options of a fingerprint; `tok` and `data` stand for the folders."""
    words = ["--input", *_names(info["inputs"]), "--tokenizer", "tok"]
    words += ["--seq-len", str(info["seq_len"])]
    if info["valid_inputs"]:
        words += ["--valid-input", *_names(info["valid_inputs"])]
    for name, value in info["options"].items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False and value != _USUAL.get(name):
            words += [flag, str(value)]
    return shlex.join(["electra-jax", "prepare", *words, "--output", "data"])


def pretrain(config: Mapping[str, Any], workdir: str) -> str:
    """`electra-jax pretrain` with the shipped recipe nearest to a run's config, and all that differs from it."""
    wanted = complete(config)
    named = {name: found for name in shipped_configs() if (found := _recipe(name)) is not None}
    apart = {name: list(overrides(recipe, wanted, changes.FREE)) for name, recipe in named.items()}
    name = min(sorted(apart), key=lambda name: len(apart[name]))
    words = ["--config", name, "--workdir", workdir, "--config.data.path=data", *apart[name]]
    return shlex.join(["electra-jax", "pretrain", *words])


def changed(record: Sequence[Mapping[str, Any]]) -> list[str]:
    """A comment for each change of the config between two starts."""
    return [
        f"# from step {row.get('step')}: {row.get('field')} was {row.get('was')!r}, now {row.get('now')!r}"
        for row in record
        if not str(row.get("field", "")).endswith("path")
    ]


def _names(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [os.path.basename(str(part["name"])) for part in inputs]


def _recipe(name: str) -> dict[str, Any] | None:
    """A shipped recipe as a whole run's config; None for one of another kind, or with an argument of its own."""
    try:
        found = load_config(name).to_dict()
    except UserError:
        return None
    return complete(found) if "objective" in found else None


def overrides(
    usual: Mapping[str, Any], wanted: Mapping[str, Any], left_out: tuple[str, ...]
) -> Iterator[str]:
    """`--config.a.b=value` for every value of a config that is not the usual one; of paths the last name alone."""
    known = flat(usual)
    for name, value in flat(wanted).items():
        if not name.startswith(left_out) and _plain(known.get(name)) != _plain(value):
            yield f"--config.{name}={_without_folders(value)}"


def _without_folders(value: Any) -> Any:
    """A value whose paths have lost the folders they lie in, which are nobody's business."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_folders, value))
    if isinstance(value, Mapping):
        return {name: _without_folders(part) for name, part in value.items()}
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that tuples equal lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return dict(value) if isinstance(value, Mapping) else value
