"""What a bucket answers: waited for so long and no longer, and what prevents it said in one line."""

import concurrent.futures
import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from electra_jax import files, schemes
from electra_jax.spec import UserError

TRY_AGAIN = 75  # exit status where another start of the same command may succeed (EX_TEMPFAIL of sysexits.h)
# Faults of the local disk, which are no answer of a bucket.
_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

T = TypeVar("T")


class BucketError(UserError):
    """A bucket that refuses, or does not answer; where another start may succeed the exit status is 75."""

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        if passing:
            self.status = TRY_AGAIN


def scheme_of(url: str | Path) -> schemes.Scheme:
    """The kind of bucket of a URL."""
    found = schemes.of(url)
    if found is None:
        raise ValueError(f"{url} lies on this machine")
    return found


def inner(url: str | Path) -> str:
    """Bucket and path of a URL, without its scheme and slashes at its end."""
    return str(url).removeprefix(scheme_of(url).prefix).rstrip("/")


def bucket_of(url: str) -> str:
    """The URL of the bucket that a URL leads to."""
    return scheme_of(url).prefix + inner(url).partition("/")[0]


class Progress:
    """When something last moved."""

    def __init__(self) -> None:
        self.moved = time.monotonic()

    def callback(self) -> Any:
        """An fsspec callback that notes the time."""
        import fsspec

        class Moved(fsspec.Callback):
            def call(_, *arguments: Any, **named: Any) -> None:
                self.moved = time.monotonic()

        return Moved()


def waited(
    url: str,
    verb: str,
    ask: Callable[[], T],
    limit_s: float,
    progress: Progress | None = None,
    passing: bool = True,
) -> T:
    """What `ask` returns or raises; BucketError when for `limit_s` seconds nothing has come, or moved in `progress`."""
    # A daemon thread: one that hangs for good delays neither the error nor the end of the process.
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()
    progress = progress or Progress()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        left = progress.moved + limit_s - time.monotonic()
        try:
            return answer.result(max(0.0, left))
        except concurrent.futures.TimeoutError:
            if answer.done():
                raise  # it is the library that ran out of time
            if time.monotonic() < progress.moved + limit_s:
                continue
            raise BucketError(
                f"cannot {verb} {url}: no answer within {limit_s:.0f} s. Is there a network, and are "
                f"there credentials? Try: {scheme_of(url).login}",
                passing,
            ) from None


def refuse_unreachable(url: str | Path, error: BaseException) -> None:
    """BucketError where an error says that the bucket could not be asked, not that what is there is wrong."""
    if scheme_of(url).fault(error) in (schemes.CREDENTIALS, schemes.PERMISSION, schemes.PASSING):
        with explained(url, "read"):
            raise error


@contextlib.contextmanager
def explained(url: str | Path, verb: str) -> Iterator[None]:
    """Turns what the bucket's library raises into a BucketError that says what to do."""
    try:
        yield
    except Exception as error:
        scheme = schemes.SCHEMES.get(files.scheme(url))
        if scheme is None:
            raise
        fault = None if getattr(error, "errno", None) in _LOCAL else scheme.fault(error)
        if fault is None:
            raise
        text = str(error)
        why = (text.splitlines()[0] if text else repr(error))[:200]
        start = f"cannot {verb} {url}: "
        if fault == schemes.MISSING:
            listing = f"{scheme.listing} {bucket_of(str(url))}"
            start += f"there is no such bucket or file; check the name ({listing})"
        elif fault == schemes.CREDENTIALS:
            scheme.forget()  # so that a new login is found
            start += f"no credentials, or they have expired ({why}). Log in with: {scheme.login}"
        elif fault == schemes.PERMISSION:
            start += f"permission denied. {scheme.grant}"
        else:
            start += why
        raise BucketError(start, passing=fault == schemes.PASSING) from error
