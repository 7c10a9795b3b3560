"""The command line: every command and its flags."""

import argparse
from collections.abc import Sequence

from electra_jax import __version__
from electra_jax.cli import finetune_flags, run_flags, text_flags
from electra_jax.cli.grammar import USAGE, Parser, refuse_unknown_flags, take_overrides
from electra_jax.cli.places import refuse_unreachable

__all__ = ["USAGE", "parse"]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of one command; `command` is its name, `overrides` the ["section.key=value", ...] of a config.

    Exits with status 2 and one line on stderr for what is not a command line of ours, with 0 after --help.
    """
    parser, commands = _parsers()
    rest, overrides = take_overrides(parser, arguments)
    command = rest[0] if rest else ""
    if command in commands:
        if overrides and "--config" not in commands[command]._option_string_actions:
            commands[command].error(f"--config.{overrides[0]}: {command} takes no config")
        refuse_unknown_flags(commands[command], rest[1:])
    elif command.startswith("-"):
        refuse_unknown_flags(parser, rest)
    elif not command:
        parser.error(f"no command; one of {', '.join(commands)}")
    options = parser.parse_args(rest)
    options.overrides = overrides
    refuse_unreachable(commands[options.command], options)
    return options


def _parsers() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser and, by name, those of its commands."""
    parser = Parser(
        prog="electra-jax",
        description="Pretrain ELECTRA in JAX: raw text in, a Hugging Face model out.",
        epilog="Start here: electra-jax quickstart        Help on one: electra-jax pretrain --help",
    )
    parser.add_argument("--version", action="version", version=f"electra-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str, example: str) -> argparse.ArgumentParser:
        description = f"{help[0].upper()}{help[1:]}."
        return commands.add_parser(
            name, help=help, description=description, epilog=f"example:\n  {example}"
        )

    for add in _COMMANDS:
        add(command)
    return parser, dict(commands.choices)


_COMMANDS = (
    text_flags.vocab,
    text_flags.prepare,
    run_flags.pretrain,
    run_flags.plan,
    run_flags.evaluate,
    run_flags.doctor,
    run_flags.export,
    run_flags.import_,
    run_flags.bench,
    finetune_flags.score,
    finetune_flags.score_text,
    finetune_flags.finetune,
    finetune_flags.predict,
    run_flags.quickstart,
)
