"""Raw text on buckets: what patterns name there is copied to local disk, and read like other files."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from electra_jax import remote
from electra_jax.spec import UserError
from electra_jax.text.sources import documents


@contextlib.contextmanager
def copied(*lists: Sequence[str]) -> Iterator[tuple[list[str], ...]]:
    """Yields lists of patterns with local paths in place of what is on a bucket; the copies go at the end.

    A file that several patterns name is copied once. The order of the copies' paths is that of the files on the
    bucket. Raises UserError, before anything is copied, for a pattern that names nothing, a bucket that cannot be
    read, and a disk with too little room.
    """
    patterns = [pattern for one in lists for pattern in one]
    if not any(map(remote.is_remote, patterns)):
        yield tuple(list(one) for one in lists)
        return
    with remote.scratch("input") as top:
        sizes: dict[str, int] = {}
        local: dict[str, list[str]] = {}
        for pattern in dict.fromkeys(filter(remote.is_remote, patterns)):
            found = _found(pattern)
            local[pattern] = [str(_place(top, url)) for url in found]
            for url, files in found.items():
                sizes |= files
                if (
                    url not in files
                ):  # a folder, for which `documents.expand` has the words where it holds no output
                    _place(top, url).mkdir(parents=True, exist_ok=True)
        places = {url: _place(top, url) for url in sizes}
        remote.fetch_all(places, sum(sizes.values()), "the input")
        with remote.named({str(_place(top, url)): url for url in _buckets(local)}):
            yield tuple([path for p in one for path in local.get(p, [p])] for one in lists)


def _found(pattern: str) -> dict[str, dict[str, int]]:
    """What a pattern names: URL -> the files to copy for it, with their bytes."""
    remote.check_access(_fixed(pattern))
    found = remote.matches(pattern)
    if not found:
        raise UserError(f"input {pattern!r} matches no file on the bucket")
    return {url: _of_folder(url) if size is None else {url: size} for url, size in found.items()}


def _of_folder(url: str) -> dict[str, int]:
    """The files of a folder that Spark or Hadoop wrote; none of another, which is not read as a whole."""
    inside = {n: size for n, size in remote.matches(f"{url}/*").items() if size is not None}
    names = [name.rpartition("/")[2] for name in inside]
    return inside if documents.is_output(names) else {}


def _fixed(pattern: str) -> str:
    """The folder above the first part of a pattern that may stand for several."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return "/".join(parts[: max(3, fixed)])


def _place(top: Path, url: str) -> Path:
    return top / url.replace("://", "/", 1)


def _buckets(urls: Iterable[str]) -> list[str]:
    """The bucket of every URL: a copy's path begins as that of its bucket."""
    return sorted({"/".join(url.split("/")[:3]) for url in urls})
