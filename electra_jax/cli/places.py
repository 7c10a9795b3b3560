"""Which paths of which command may lie on a bucket; every other address is refused, never taken for a local folder."""

import argparse
from collections.abc import Iterator

# Command -> flags and config keys that take gs://. What is not here takes local paths.
ON_BUCKETS = {
    "vocab": ("output",),
    "prepare": ("output",),
    "pretrain": ("workdir", "data.path"),
    "plan": ("data.path",),
    "bench": ("data", "data.path"),
    "evaluate": ("workdir", "data"),
    "export": ("workdir", "output"),
    "import": ("workdir", "discriminator", "generator"),
    "finetune": ("init",),
    "predict": ("workdir", "input", "output"),
}
# Flags and keys whose text is no path: names of columns, an engine's options.
_WORDS = ("text_key", "text", "pair", "label", "id", "beam_options", "overrides")


def refuse_unreachable(command: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with one line for an address (s3://..., gs://...) where the command cannot read or write."""
    for name, value in _addresses(options):
        from electra_jax import files  # not at the top: --help has no need of it

        scheme = files.scheme(value)
        flag = f"--config.{name}" if "." in name else f"--{name.replace('_', '-')}"
        if scheme == "file":
            command.error(f"{flag} {value}: give the path itself, {value.partition('://')[2]}")
        if scheme not in ("", "gs"):
            command.error(
                f"{flag} {value}: only gs:// (Google Cloud Storage) and local paths are supported"
            )
        taken = ON_BUCKETS.get(options.command, ())
        if scheme and name not in taken:
            able = ", ".join(f"--{one}" for one in taken if "." not in one) or "none"
            command.error(
                f"{flag} {value}: a local path is needed here; copy it with gcloud storage cp. "
                f"Flags of {options.command} that take gs://: {able}"
            )


def _addresses(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Name and value of every flag and override that may be an address."""
    pairs = [(name, value) for name, value in vars(options).items() if name not in _WORDS]
    pairs += [tuple(override.split("=", 1)) for override in options.overrides]
    for name, value in pairs:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "://" in one and name.removeprefix("data.") not in _WORDS:
                yield name, one
