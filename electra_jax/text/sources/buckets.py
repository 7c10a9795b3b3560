"""Raw text on buckets: what patterns name there is copied to local disk, and read like other files."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from electra_jax import remote
from electra_jax.text.sources import listing


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
            found = listing.found(pattern)
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


def _place(top: Path, url: str) -> Path:
    return top / url.replace("://", "/", 1)


def _buckets(urls: Iterable[str]) -> list[str]:
    """The bucket of every URL: a copy's path begins as that of its bucket."""
    return sorted({"/".join(url.split("/")[:3]) for url in urls})
