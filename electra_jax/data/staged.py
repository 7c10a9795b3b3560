"""Prepared data on a bucket, copied to local disk: sizes first, checksums on the way, reused when complete.

The whole folder, or all but its shards, which cache.py then fetches when their rows are near.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from electra_jax import activity, files, remote
from electra_jax.data import cache, fingerprint, marks
from electra_jax.spec import UserError


def stage(url: str) -> Path:
    """The local copy of a prepared folder on a bucket, whole."""
    folder, text, info, there = _look(url, "data")
    with _alone(folder):
        if not (folder / fingerprint.NAME).exists():
            _copy(url, folder, there, info)
            files.write_bytes(folder / fingerprint.NAME, text)  # last: it vouches for the rest
    fingerprint.read(folder)
    return folder


def stream(url: str) -> tuple[Path, dict[str, Any], str, cache.Shards | None]:
    """(local copy, content and hash of the fingerprint, shards that are fetched when they are asked for).

    The copy has all but the shards; where a whole one of `stage` is on this machine it is that, and None.
    """
    folder, text, info, there = _look(url, "stream")
    digest = hashlib.sha256(text).hexdigest()
    whole = remote.cache_folder("data") / folder.name
    if (whole / fingerprint.NAME).exists():
        return whole, *fingerprint.read(whole), None
    shards = {shard["name"] for shard in info["shards"]}
    rest = {name: size for name, size in there.items() if name not in shards}
    with _alone(folder):
        _copy(url, folder, rest, info)
        files.write_bytes(folder / fingerprint.NAME, text)
    return folder, info, digest, cache.Shards(url, folder, info["shards"])


def _look(url: str, kind: str) -> tuple[Path, bytes, dict[str, Any], dict[str, int]]:
    """(place of the local copy, fingerprint.json and its content, sizes of the files) of a folder on a bucket.

    It lies under its fingerprint in the cache folder, so that it is fetched once by all processes
    and runs of a machine, and never taken for other data. Raises UserError for a bucket that cannot
    be read, and a folder that is none of ours or incomplete.
    """
    remote.check_access(url)
    there = remote.sizes(url)
    if fingerprint.NAME not in there:
        raise UserError(
            f"{url} has no {fingerprint.NAME}; expected a folder made by `electra-jax prepare` and "
            "copied whole"
        )
    text = remote.read(remote.join(url, fingerprint.NAME))
    info = fingerprint.parse(remote.join(url, fingerprint.NAME), text)
    _check(url, info, there)
    folder = remote.cache_folder(kind) / hashlib.sha256(text).hexdigest()[:32]
    return folder, text, info, there


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder; inside, one process of a machine copies, and the others wait."""
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _check(url: str, info: Mapping[str, Any], there: Mapping[str, int]) -> None:
    if strange := [name for name in there if ".." in name.split("/") or name.startswith("/")]:
        raise UserError(f"{url} holds {strange[0]!r}, a name that leads out of a folder; remove it")
    wrong = []
    for shard in info["shards"]:
        name, expected = shard["name"], shard["bytes"]
        if name not in there:
            wrong.append(f"{name} is missing")
        elif there[name] != expected:
            wrong.append(f"{name} has {there[name]} bytes, expected {expected}")
    if wrong:
        raise UserError(f"{url} is incomplete: {'; '.join(wrong)}. Copy the folder again")


def _copy(url: str, folder: Path, there: Mapping[str, int], info: Mapping[str, Any]) -> None:
    digests = {shard["name"]: shard["sha256"] for shard in info["shards"]}
    # A whole file of an interrupted copy has its final name; no need to fetch it again.
    missing = {
        name: size
        for name, size in there.items()
        if name != fingerprint.NAME and not _is_there(folder / name, size)
    }
    needed = sum(missing.values())
    remote.refuse_full_disk(folder, needed, f"a copy of {url}")
    with (
        tqdm(total=needed, unit="B", unit_scale=True, desc="copy data", disable=None) as bar,
        activity.doing(f"copying {url}") as progress,
    ):
        done = 0  # the bar counts only where it is shown

        def copied(count: int) -> None:
            nonlocal done
            done += count
            bar.update(count)
            progress(f"{done / 1e9:.1f} of {needed / 1e9:.1f} GB")

        for name in sorted(missing):
            remote.fetch(remote.join(url, name), folder / name, digests.get(name), copied)
            if name in digests:
                marks.write_copied(folder / name, digests[name])


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
