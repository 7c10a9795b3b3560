"""The grammar of command lines: no abbreviations, config overrides, errors of one line with the nearest right word."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

USAGE = 2  # exit status of a mistake of the user's
Command = Callable[[str, str, str], argparse.ArgumentParser]  # name, help, example


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations whose errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=raw)

    def error(self, message: str) -> NoReturn:
        """Prints the error and where to find help; exits with status 2."""
        self.exit(USAGE, f"error: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            flag = "/".join(action.option_strings)
            what = f"value {value!r} of {flag}" if flag else f"command {value!r}"
            known = ", ".join(action.choices)
            self.error(f"unknown {what}.{did_you_mean(value, action.choices)} Known: {known}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, or nothing."""
    from electra_jax.spec import nearest  # not at the top: --help has no need of it

    guess = nearest(word, known)
    return f" Did you mean {guess!r}?" if guess else ""


def refuse_unknown_flags(command: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Before argparse, which would rather complain about a required flag that was only mistyped."""
    known = command._option_string_actions
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            command.error(f"unknown flag {flag!r}.{did_you_mean(flag, known)}")


def take_overrides(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Splits `--config.a.b=v` and `--config.a.b v` off: the other arguments, and ["a.b=v", ...]."""
    rest, overrides = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        override = argument.removeprefix("--config.")
        if "=" not in override:
            value = next(waiting, None)
            if value is None or value.startswith("--"):
                parser.error(f"{argument} has no value; write {argument}=VALUE")
            override = f"{override}={value}"
        overrides.append(override)
    return rest, overrides


def at_least(minimum: int) -> Callable[[str], int]:
    """Parses a whole number that is not below `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; at least {minimum}")
        return value

    return parse


def between(least: int, most: int) -> Callable[[str], int]:
    """Parses a whole number in a range, ends included."""

    def parse(text: str) -> int:
        digits = text.strip().lstrip("+-").replace("_", "")
        if not digits.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        value = int(text) if len(digits) < 20 else most + 1
        if not least <= value <= most:
            shown = text if len(text) < 30 else f"{text[:20]}... ({len(text)} characters)"
            raise argparse.ArgumentTypeError(f"{shown} is not {least:,} to {most:,}")
        return value

    return parse


def held_out(text: str) -> float:
    """Parses the share of a text that is held out: 0 to 0.5."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not 0 to 0.5")
    return value
