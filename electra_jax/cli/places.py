"""Which paths of which command may lie on a bucket; every other address is refused, never taken for a local folder."""

import argparse
from collections.abc import Iterator

# Command -> flags and config keys that take addresses of buckets. What is not here takes local paths.
_PREPARED = ("data.path",)
_TASK = ("data.dir", "data.train", "data.dev", "data.test", "data.tokenizer")
ON_BUCKETS = {
    "vocab": ("input", "output"),
    "prepare": ("input", "valid_input", "tokenizer", "output"),
    "pretrain": ("workdir", *_PREPARED),
    "plan": _PREPARED,
    "bench": ("data", *_PREPARED),
    "evaluate": ("workdir", "data"),
    "doctor": ("workdir",),
    "export": ("workdir", "output"),
    "import": ("workdir", "discriminator", "generator"),
    "finetune": ("workdir", "init", "data_dir", "train", "dev", "test", "tokenizer", *_TASK),
    "predict": ("workdir", "input", "output"),
    "score-text": ("model", "input", "pairs"),
    "score": ("references", "predictions", "null_odds"),
}
# Flags and keys whose text is no path: names of columns, an engine's options.
_WORDS = ("text_key", "text", "pair", "label", "id", "beam_options", "overrides")


def refuse_unreachable(command: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with one line for an address (hdfs://..., gs://...) where the command cannot read or write."""
    for name, value in _addresses(options):
        from electra_jax import files, schemes  # not at the top: --help has no need of it

        scheme = files.scheme(value)
        flag = f"--config.{name}" if "." in name else f"--{name.replace('_', '-')}"
        if scheme == "file":
            command.error(f"{flag} {value}: give the path itself, {value.partition('://')[2]}")
        if scheme and not any(value.startswith(one.prefix) for one in schemes.SCHEMES.values()):
            command.error(f"{flag} {value}: only {schemes.NAMES} and local paths are supported")
        taken = ON_BUCKETS.get(options.command, ())
        if scheme and name not in taken:
            flags = [f"--{one.replace('_', '-')}" for one in taken if "." not in one]
            able = ", ".join(flags) or "none"
            command.error(
                f"{flag} {value}: a local path is needed here; copy it with "
                f"{schemes.SCHEMES[scheme].copying}. Flags of {options.command} that take buckets: {able}"
            )


def _addresses(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Name and value of every flag and override that may be an address."""
    pairs = [(name, value) for name, value in vars(options).items() if name not in _WORDS]
    pairs += [tuple(override.split("=", 1)) for override in options.overrides]
    for name, value in pairs:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "://" in one and name.removeprefix("data.") not in _WORDS:
                yield name, one
