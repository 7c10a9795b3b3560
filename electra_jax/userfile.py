"""Python files that users write: run by path, and refused by file, member, what was expected and what was found."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from electra_jax.spec import UserError, blamed, run_file


def is_file(name: Any) -> bool:
    """Whether a name in a config is a user's file, not something the package knows by that name."""
    return isinstance(name, str) and name.endswith(".py")


def load(path: str | Path, what: str, members: Mapping[str, str]) -> ModuleType:
    """The module of the file. `what` it is begins every error; `members`: name -> what each has to be.

    Raises UserError for a file that is not there, that raises, or that lacks one of the members.
    """
    path, what = Path(path), f"{what} {path}"
    if path.suffix != ".py" or not path.is_file():
        found = (
            "is not a .py file"
            if path.exists()
            else f"does not exist (looked in {path.absolute().parent})"
        )
        raise UserError(f"{what} {found}; give the path of a Python file")
    module = run_file(path, what)
    for name, expected in members.items():
        if not hasattr(module, name):
            own = [
                n
                for n, x in vars(module).items()
                if getattr(x, "__module__", "") == module.__name__
            ]
            raise wrong(
                what,
                name,
                expected,
                f"nothing of this name; the file has {', '.join(own) or 'nothing'}",
            )
    return module


def wrong(what: str, member: str, expected: str, found: str) -> UserError:
    """The error for a member that is not what it has to be; `what` names the file."""
    return UserError(f"{what}: {member}: expected {expected}; found {found}")


@contextlib.contextmanager
def calling(path: str | Path, what: str, member: str, expected: str) -> Iterator[None]:
    """Inside, whatever the user's `member` raises is a UserError with its line; UserErrors stay as they are."""
    try:
        with blamed(Path(path), f"{what}: {member}"):
            yield
    except UserError as error:
        if error.__cause__ is None:  # the user's own, or ours
            raise
        raise UserError(f"{error}; expected {expected}") from error.__cause__


def described(value: Any) -> str:
    """A value as an error names it: arrays by type and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {described(x)}" for name, x in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(described, value))})"
    return (
        f"{value!r} ({type(value).__name__})"
        if isinstance(value, int | float | str)
        else type(value).__name__
    )
