"""One run per workdir on a bucket: an object that says whose it is, with a heartbeat and a stated expiry.

A bucket has no lock that a kernel gives back. The owner rewrites the object every HEARTBEAT_S seconds; whoever
finds one watches it for EXPIRY_S seconds by a clock of their own, and takes it over if it has not moved. No two
machines' clocks are compared, so a clock that is wrong, or jumps, changes nothing.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import fsspec

from electra_jax import records
from electra_jax.answers import BucketError, explained
from electra_jax.spec import UserError

NAME = ".owner"
_FOREIGN = "remove it if no run is going on there"
_FIELDS = {"who": str, "token": str, "beat": records.Whole()}
HEARTBEAT_S = 20.0
EXPIRY_S = 120.0  # after kill -9, so long the workdir cannot be started on
# Where an object cannot be made on the condition that there is none, two that start at once both write, and the later
# one stays. So, too, where two take over what a dead one has left.
_SETTLE_S = 2.0


class Owner:
    """A workdir that is held; `check` says whether it still is."""

    def __init__(self, url: str, heartbeat_s: float, expiry_s: float) -> None:
        self._url = url
        self._connect()
        self._heartbeat_s, self._expiry_s = heartbeat_s, expiry_s
        self._me = f"process {os.getpid()} on {socket.gethostname()}"
        self._token, self._beat = secrets.token_hex(8), 0
        self._written = time.monotonic()
        self._lost = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="owner", daemon=True)

    def _connect(self) -> None:
        self._bucket, folder = fsspec.core.url_to_fs(self._url, use_listings_cache=False)
        self._path = f"{folder.rstrip('/')}/{NAME}"

    def check(self) -> None:
        """Raises UserError when another start has taken the workdir, BucketError while it may have without our knowing.

        The latter passes when the bucket can be reached again and the object is still ours.
        """
        if self._lost:
            raise UserError(
                f"{self._path}: this run no longer owns its workdir ({self._lost}); it goes on from the newest "
                "checkpoint with the command that began it"
            )
        if time.monotonic() - self._written > self._expiry_s:
            raise BucketError(
                f"{self._path}: the bucket could not be written for {self._expiry_s:.0f} s, so that another start may "
                "have taken this workdir",
                passing=True,
            )

    def take(self, settle_s: float) -> None:
        """Becomes the owner; UserError when somebody else is."""
        while not self._create():
            if (found := self._read()) is not None:
                self._watch(found)
                self._write()
                self._settle(settle_s)
                break
        else:
            # A server that makes an object that is there does not know the condition.
            if self._create():
                self._settle(settle_s)
        self._thread.start()

    def _create(self) -> bool:
        """Makes the object if there is none; whether it did. Of several that ask at once, one does."""
        began = time.monotonic()
        try:
            self._bucket.pipe_file(self._path, self._content(), mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError, ValueError):  # neither the server nor the library
            if self._read() is not None:
                return False
            self._bucket.pipe_file(self._path, self._content())
        self._written = began
        return True

    def _settle(self, settle_s: float) -> None:
        """Waits until whoever wrote at the same time has written; UserError when it is not ours that stayed."""
        time.sleep(settle_s)
        found = self._read()
        if found is None or found["token"] != self._token:
            raise self._in_use(found)

    def give_back(self) -> None:
        """Removes the object, if it is still ours."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        found = self._read()
        if found is not None and found["token"] == self._token:
            self._bucket.rm_file(self._path)

    def _watch(self, first: dict[str, Any]) -> None:
        """Returns when the object has not moved for the whole expiry, or is gone."""
        start = time.monotonic()
        while time.monotonic() - start < self._expiry_s:
            time.sleep(min(1.0, self._expiry_s / 10))
            found = self._read()
            if found is None:
                return
            if found != first:
                raise self._in_use(found)

    def _in_use(self, found: dict[str, Any] | None) -> UserError:
        who = found["who"] if found is not None else "another process"
        return UserError(
            f"workdir {self._path.removesuffix('/' + NAME)} is in use by {who}; wait until it has ended, or "
            "choose another --workdir"
        )

    def _keep(self) -> None:
        while not self._closing.wait(self._heartbeat_s):
            # Without network, or credentials, for a while; `check` counts the time.
            try:
                self._lost = self._taken()
                if self._lost:
                    return
                self._write()
            except Exception:  # noqa: BLE001  whatever the bucket's library raises
                with contextlib.suppress(Exception):
                    self._connect()  # with a login that may be newer

    def _taken(self) -> str:
        """Who has taken the workdir; empty while it is ours."""
        found = self._read()
        if found is None and time.monotonic() - self._written > self._expiry_s:
            return "another start has taken it and ended"
        return f"{found['who']} has taken it" if found and found["token"] != self._token else ""

    def _read(self) -> dict[str, Any] | None:
        try:
            data = self._bucket.cat_file(self._path)
        except FileNotFoundError:
            return None
        found = records.parse(data, self._path, _FOREIGN)
        return records.check(found, _FIELDS, self._path, _FOREIGN)

    def _write(self) -> None:
        began = time.monotonic()
        self._bucket.pipe_file(self._path, self._content())
        self._written = began

    def _content(self) -> bytes:
        self._beat += 1
        content = {"who": self._me, "token": self._token, "beat": self._beat}
        return json.dumps(content).encode()


@contextlib.contextmanager
def owned(
    url: str,
    heartbeat_s: float = HEARTBEAT_S,
    expiry_s: float = EXPIRY_S,
    settle_s: float = _SETTLE_S,
) -> Iterator[Owner]:
    """Holds a folder on a bucket (any fsspec URL); UserError naming the other process when somebody does already."""
    with explained(url, "write"):
        owner = Owner(url, heartbeat_s, expiry_s)
        owner.take(settle_s)
    try:
        yield owner
    finally:
        try:
            with explained(url, "write"):
                owner.give_back()
        except (BucketError, OSError) as error:
            print(
                f"warning: {error}; the next start on this workdir waits {expiry_s:.0f} s to see that no run is "
                "going on",
                file=sys.stderr,
            )
