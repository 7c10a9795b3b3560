"""What all tests share: eight CPU devices, the shared corpora, and the choice to go without PyTorch."""

import ast
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before jax starts: meshes are tested on one machine, on the CPU whatever else it has.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # asks a real cloud, at every call
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that wants the network is a mistake

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTORCH = {"torch", "transformers"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-torch",
        action="store_true",
        help="leave out the files that import torch or transformers",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Marks of hashed files and copies of remote ones: not those of whoever runs the tests.
    cache = tempfile.TemporaryDirectory(prefix="electra_jax-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ["ELECTRA_JAX_CACHE"] = cache.name
    # The fast tests spend most of their time in compilers, on programs that run once: leave the optimiser out.
    # The slow ones train, so theirs are compiled as a user's are.
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] += (
            " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--without-torch") and collection_path.suffix == ".py":
        return _imports(collection_path) & PYTORCH != set() or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-torch"):
        dropped = [item for item in items if item.get_closest_marker("torch")]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not item.get_closest_marker("torch")]


def _imports(path: Path) -> set[str]:
    """The packages that a file imports when it is itself imported."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.fixture(scope="session")
def shared() -> Path:
    """The corpora beside the checkout; tests that need them skip without."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(
            f"{path} is absent: this test reads real corpora that are not part of the repository"
        )
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def _storage() -> Iterator[Any]:
    """A server that speaks the protocol of Google Cloud Storage, in memory."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            if handler in (objects.get, objects.download, objects.insert):
                handlers[method] = _with_generations(handler)
    # It serves one after the other, and clients ask for many things at once.
    server.server.HTTPServer.request_queue_size = 256
    emulator = server.create_server("localhost", 0, in_memory=True)
    emulator.start()
    emulator._api._httpd.handle_error = lambda *_: None  # clients that hang up are no news
    yield emulator
    emulator.stop()


def _with_generations(handler: Callable[..., None]) -> Callable[..., None]:
    """What the emulator lacks and tensorstore relies on: conditions on an object's generation."""
    from http import HTTPStatus

    from gcp_storage_emulator.exceptions import NotFound

    def handle(request: Any, response: Any, storage: Any, *rest: Any, **named: Any) -> None:
        def generation() -> str:
            name = request.params.get("object_id") or request.query.get("name", [""])[0]
            name = name or request.data["meta"]["name"]
            try:
                return storage.get_file_obj(request.params["bucket_name"], name)["generation"]
            except NotFound:
                return "0"

        query = request.query
        match, other = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
        if match and match != [generation()]:
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif other and other == [generation()] != ["0"]:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            handler(request, response, storage, *rest, **named)
            if query.get("alt") == ["media"]:
                response["x-goog-generation"] = generation()

    return handle


@pytest.fixture
def bucket(_storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket; copies of its files go below `tmp_path`."""
    from gcp_storage_emulator.handlers import buckets

    from electra_jax import remote, schemes

    place = f"http://localhost:{_storage._api._httpd.server_address[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", place)  # of gcsfs
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", place)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")  # of tensorstore
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    _storage.wipe()
    buckets.create_bucket("bucket", _storage._storage)
    schemes.SCHEMES["gs"].forget()
    yield "gs://bucket"
    schemes.SCHEMES["gs"].forget()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    """The address of a server that speaks the protocol of S3, in memory."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(_s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket that speaks S3; copies of its files go below `tmp_path`."""
    import urllib.request

    from electra_jax import remote, schemes

    for name, value in (
        ("AWS_ENDPOINT_URL", _s3_server),
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "tests"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        (remote.CACHE, str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    reset = urllib.request.Request(f"{_s3_server}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    scheme = schemes.SCHEMES["s3"]
    scheme.forget()
    scheme.file_system().mkdir("bucket")
    yield "s3://bucket"
    scheme.forget()


@pytest.fixture(params=["gs", "s3"])
def either_bucket(request: pytest.FixtureRequest) -> str:
    """The URL of an empty bucket, of each kind in turn."""
    return request.getfixturevalue("bucket" if request.param == "gs" else "s3_bucket")
