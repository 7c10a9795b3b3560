"""What patterns name on buckets, and which folders are the output of Spark or Hadoop."""

from collections.abc import Sequence

from electra_jax import remote
from electra_jax.spec import UserError


def is_output(names: Sequence[str]) -> bool:
    """Whether these are the names in a folder that Spark or Hadoop wrote."""
    return "_SUCCESS" in names or any(name.startswith("part-") for name in names)


def found(pattern: str) -> dict[str, dict[str, int]]:
    """What a pattern (a glob) names on a bucket: URL -> the files it stands for, with their bytes.

    A folder that Spark or Hadoop wrote stands for its files, another for none. Raises UserError for a pattern that
    names nothing, and a bucket that cannot be read.
    """
    remote.check_access(_fixed(pattern))
    named = remote.matches(pattern)
    if not named:
        raise UserError(f"input {pattern!r} matches no file on the bucket")
    return {url: _of_folder(url) if size is None else {url: size} for url, size in named.items()}


def _of_folder(url: str) -> dict[str, int]:
    """The files of a folder that Spark or Hadoop wrote; none of another, which is not read as a whole."""
    inside = {n: size for n, size in remote.matches(f"{url}/*").items() if size is not None}
    names = [name.rpartition("/")[2] for name in inside]
    return inside if is_output(names) else {}


def _fixed(pattern: str) -> str:
    """The folder above the first part of a pattern that may stand for several."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return "/".join(parts[: max(3, fixed)])
