"""Kinds of buckets (gs://, s3://): an object each, with its library and what its errors mean."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from electra_jax import files
from electra_jax.spec import UserError

# What prevents an answer: no or expired credentials, no permission, nothing there, a fault that may pass, or another.
CREDENTIALS, PERMISSION, MISSING, PASSING, OTHER = range(1, 6)

# Answers of a server that ask for patience: too slow, too many requests, a fault of its own.
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One kind of bucket. `writes_arrays`: Orbax writes checkpoints there itself."""

    name: str
    title: str
    library: str
    extra: str
    login: str  # what gives credentials
    grant: str  # what gives permission
    listing: str  # command that lists, before a URL
    copying: str  # command that copies
    writes_arrays: bool
    make: Callable[[], Any]  # the fsspec file system
    diagnose: Callable[[BaseException], int | None]
    arrays: Callable[
        [str, str], dict[str, Any]
    ]  # bucket, path inside -> tensorstore's key-value store

    @property
    def prefix(self) -> str:
        """What every URL begins with."""
        return self.name + "://"

    @functools.cached_property
    def _made(self) -> dict[int, Any]:
        return {}

    def file_system(self) -> Any:
        """The library's file system, made once a process; UserError where the library is not installed."""
        if os.getpid() not in self._made:
            try:
                self._made[os.getpid()] = self.make()
            except ImportError as error:
                raise UserError(
                    f"{self.prefix} paths need {self.library}: pip install 'electra_jax[{self.extra}]'"
                ) from error
        return self._made[os.getpid()]

    def forget(self) -> None:
        """Makes the file system again when it is next needed, with the environment and login of then."""
        for one in self._made.values():
            type(one).clear_instance_cache()
        self._made.clear()

    def fault(self, error: BaseException) -> int | None:
        """CREDENTIALS, PERMISSION, MISSING, PASSING or OTHER; None for what is no answer of a bucket."""
        if isinstance(error, UserError) or type(error).__module__.startswith("jax"):
            return None
        found = [self.diagnose(one) or _status(str(one)) for one in _with_causes(error)]
        for one in found:
            if one not in (None, OTHER):
                return one
        if isinstance(error, FileNotFoundError):
            return MISSING
        if isinstance(error, PermissionError):
            return PERMISSION
        if isinstance(error, ConnectionError | TimeoutError):
            return PASSING
        ours = OTHER in found or isinstance(error, OSError | ValueError | RuntimeError)
        return OTHER if ours else None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(text: str) -> int | None:
    """What tensorstore's texts begin with."""
    if text.startswith("UNAUTHENTICATED"):
        return CREDENTIALS
    if text.startswith("PERMISSION_DENIED"):
        return PERMISSION
    passing = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
    return PASSING if text.startswith(passing) else None


def _gs() -> Any:
    import gcsfs

    return gcsfs.GCSFileSystem()


def _gs_fault(error: BaseException) -> int | None:
    name, text = type(error).__module__, str(error)
    if name.startswith("google.auth"):
        return CREDENTIALS
    # gcsfs.retry.HttpError has a code; for 403 and 404 there are only words.
    code = str(getattr(error, "code", ""))
    words = (
        "Anonymous caller",
        "Invalid Credentials",
        "UNAUTHENTICATED",
        "HTTP response code: 401",
    )
    if code == "401" or any(word in text for word in words):
        return CREDENTIALS
    if code == "403" or text.startswith(("Forbidden", "PERMISSION_DENIED")):
        return PERMISSION
    if code == "404":
        return MISSING
    if code.isdecimal() and int(code) in _PASSING_STATUS:
        return PASSING
    return PASSING if name.startswith(("aiohttp", "requests")) else None


def _s3() -> Any:
    import s3fs

    return s3fs.S3FileSystem()


def _s3_fault(error: BaseException) -> int | None:
    kind = type(error)
    if kind.__name__ in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"):
        return CREDENTIALS
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code"))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in (
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "RequestExpired",
        ):
            return CREDENTIALS
        if code in ("InvalidToken", "SignatureDoesNotMatch") or status == 401:
            return CREDENTIALS
        if status == 403:
            return PERMISSION
        if status == 404:
            return MISSING
        if status in _PASSING_STATUS or code in ("SlowDown", "InternalError"):
            return PASSING
    # botocore's own errors of connections
    endings = ("ConnectionError", "TimeoutError", "ConnectionClosedError", "ConnectTimeoutError")
    if kind.__module__.startswith(("botocore", "aiobotocore", "aiohttp", "urllib3")):
        return PASSING if kind.__name__.endswith(endings) else OTHER
    return None


def _s3_arrays(bucket: str, inside: str) -> dict[str, Any]:
    store: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": inside}
    if place := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        store["endpoint"] = place
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        store["aws_region"] = region
    if (
        "AWS_ACCESS_KEY_ID" in os.environ
    ):  # else files are looked for, and lines are written of each that is not there
        store["aws_credentials"] = {"type": "environment"}
    return store


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            name="gs",
            title="Google Cloud Storage",
            library="gcsfs",
            extra="gcs",
            login="gcloud auth application-default login",
            grant="Give the account that runs this the role Storage Object Admin (to read: Storage Object Viewer) on "
            "the bucket; machines of Google Cloud act as their service account",
            listing="gcloud storage ls",
            copying="gcloud storage cp",
            writes_arrays=True,
            make=_gs,
            diagnose=_gs_fault,
            arrays=lambda bucket, inside: {"driver": "gcs", "bucket": bucket, "path": inside},
        ),
        Scheme(
            name="s3",
            title="Amazon S3 and what speaks its protocol",
            library="s3fs",
            extra="s3",
            login="aws configure, aws sso login, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            grant="Give the user or role that runs this s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and "
            "s3:DeleteObject on its objects",
            listing="aws s3 ls",
            copying="aws s3 cp",
            writes_arrays=False,
            make=_s3,
            diagnose=_s3_fault,
            arrays=_s3_arrays,
        ),
    )
}
NAMES = " and ".join(f"{scheme.prefix} ({scheme.title})" for scheme in SCHEMES.values())


def of(path: Any) -> Scheme | None:
    """The kind of bucket that a path lies on; None for one of this machine. UserError for other addresses."""
    name = files.scheme(path)
    if not name:
        return None
    if name not in SCHEMES or not str(path).startswith(SCHEMES[name].prefix):
        raise UserError(f"{path}: only {NAMES} and local paths are supported")
    return SCHEMES[name]
