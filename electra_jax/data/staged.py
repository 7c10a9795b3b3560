"""Prepared data on a bucket, copied to local disk: sizes first, checksums on the way, reused when complete."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from electra_jax import activity, files, remote
from electra_jax.data import fingerprint, marks
from electra_jax.spec import UserError


def stage(url: str) -> Path:
    """The local copy of a prepared folder on a bucket.

    It lies under its fingerprint in the cache folder, so that it is fetched once by all processes
    and runs of a machine, and never taken for other data. Raises UserError for a bucket that cannot
    be read, a folder that is none of ours or incomplete, a shard whose content was damaged, and a
    disk with too little room, the last before anything is copied.
    """
    remote.check_access(url)
    there = remote.sizes(url)
    if fingerprint.NAME not in there:
        raise UserError(
            f"{url} has no {fingerprint.NAME}; expected a folder made by `electra-jax prepare` and "
            "copied whole"
        )
    text = remote.read(remote.join(url, fingerprint.NAME))
    info = _parse(url, text)
    _check(url, info, there)
    folder = remote.cache_folder("data") / hashlib.sha256(text).hexdigest()[:32]
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process of a machine copies, the others wait
            if not (folder / fingerprint.NAME).exists():
                _copy(url, folder, there, info)
                files.write_bytes(folder / fingerprint.NAME, text)  # last: it vouches for the rest
    fingerprint.read(folder)
    return folder


def _parse(url: str, text: bytes) -> dict[str, Any]:
    try:
        info = json.loads(text)
        if isinstance(info, dict) and isinstance(info["shards"], list):
            return info
    except (ValueError, KeyError):
        pass
    raise UserError(f"{url}/{fingerprint.NAME} is damaged; copy the folder to the bucket again")


def _check(url: str, info: Mapping[str, Any], there: Mapping[str, int]) -> None:
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
