"""What all tests share: eight CPU devices, the shared corpora, and the choice to go without PyTorch."""

import ast
import importlib.util
import logging
import os
import random
import signal
import string
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Before jax starts: meshes are tested on one machine, on the CPU whatever else it has.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # asks a real cloud, at every call
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that wants the network is a mistake

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from ml_collections import ConfigDict

from electra_jax.bench.synthetic import synthetic
from electra_jax.data.prepare import build
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import hardware
from electra_jax.learn import mesh as meshes
from electra_jax.ops import kernel
from electra_jax.ops.vocabulary import api as vocabulary_api
from electra_jax.pretrain import evaluate, program
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config
from electra_jax.text import tokenizer
from electra_jax.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
PYTORCH = {"torch", "transformers"}
SMALL = (
    "model.layers=1",
    "model.width=16",
    "model.ffn=32",
    "model.embedding=12",
    "model.positions=32",
    "train.batch=8",
    "train.eval_batches=2",
)
WORDS = (
    "the a an of in was to and is are born john smith who when where how many city year new york",
    "what not he she it red blue cat dog mat sat on",
)
CHINESE = "我你他是在的中国人大学北京上海年月日一二三"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-torch",
        action="store_true",
        help="leave out the files that import torch or transformers",
    )
    parser.addoption(
        "--without-shared",
        action="store_true",
        help="go without the corpora beside the checkout, as in a plain clone",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell that starts a job in the background has it ignore Ctrl-C, which some tests are about.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
def real(pytestconfig: pytest.Config) -> Path | None:
    """The corpora beside the checkout; None without them, when `written` takes their place."""
    path = ROOT.parent / "shared" / "data"
    return path if path.is_dir() and not pytestconfig.getoption("--without-shared") else None


@pytest.fixture(scope="session")
def shared(real: Path | None) -> Path:
    """The corpora beside the checkout, for tests of what only real corpora have; they skip without."""
    if real is None:
        pytest.skip("reads ../shared/data, real corpora that are not part of the repository")
    return real


@pytest.fixture(scope="session")
def written() -> ModuleType:
    """Text and vocabularies made by rule: see tests/written.py."""
    spec = importlib.util.spec_from_file_location("written", ROOT / "tests" / "written.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def uncased(
    real: Path | None, written: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A vocab.txt of 30,522 entries: that of BERT and ELECTRA, else a made one."""
    if real is not None:
        return real / "vocab" / "bert-base-uncased-vocab.txt"
    path: Path = tmp_path_factory.mktemp("uncased") / "vocab.txt"
    path.write_text("\n".join(written.entries("english", 30_522, True)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def taken_by_pretrain() -> set[str]:
    """The "operation/implementation" of all that the train step of `pretrain --config small` takes on a CPU."""
    run = run_spec(load_config("small", ["model.layers=1", "train.batch=8"]).to_dict())
    (phase,) = run.phases(synthetic(128))
    return implementations_of(program.build(run, phase, meshes.build(run.mesh, jax.devices()[:1])))


def implementations_of(built: program.Program) -> set[str]:
    """The "operation/implementation" of all that a run's train step takes."""
    with kernel.recorded() as taken:
        built.train_step.lower(built.abstract_state, built.abstract_batch)
    return taken


@pytest.fixture(scope="module")
def as_in_a_run() -> Iterator[None]:
    """What is traced takes the operations of a run: those of a mesh of one CPU, a vocabulary of several tiles."""
    mesh = meshes.build(meshes.MeshSpec(1, 1), jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_api, "TILE", 64)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield


@pytest.fixture(scope="session")
def taken_by() -> Callable[[program.Program], set[str]]:
    """`implementations_of`."""
    return implementations_of


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


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of random words in rows of 32 tokens, a fifth of them held out."""
    folder = tmp_path_factory.mktemp("train-data")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [a + b for a in "bcdfgklm" for b in ("at", "en", "ig", "ot", "um")]
    (folder / "vocab.txt").write_text("\n".join([*special, *words, "."]) + "\n")
    draw = random.Random(0)
    documents = [
        "\n".join(" ".join(draw.choices(words, k=draw.randrange(4, 30))) + "." for _ in range(6))
        for _ in range(60)
    ]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    build.prepare(
        [str(folder / "corpus.txt")],
        folder / "vocab.txt",
        32,
        folder / "data",
        valid_fraction=0.2,
        workers=1,
    )
    return folder / "data"


@pytest.fixture(scope="session")
def prepared(prepared_folder: Path) -> Prepared:
    """The same, opened."""
    return open_prepared(prepared_folder)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled programs."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def cheap(programs: Path) -> Iterator[None]:
    """One device, programs compiled once for all tests that ask for this, no measured matmul."""
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(programs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meshes, "build", lambda spec: one)
        patch.setattr(evaluate, "build_mesh", lambda spec: one)
        patch.setattr(hardware, "_time_matmuls", lambda size, dtype: 1.0)
        yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="session")
def config(prepared_folder: Path) -> Callable[..., ConfigDict]:
    """The tiny config, made smaller, on the prepared data, with more overrides."""

    def make(*overrides: str, data: Any = prepared_folder) -> ConfigDict:
        return load_config("tiny", [*SMALL, f"data.path={data}", *overrides])

    return make


@pytest.fixture(scope="session")
def speller(tmp_path_factory) -> Tokenizer:
    """An uncased WordPiece tokenizer: some words, every letter and digit, punctuation, Chinese."""
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *CHINESE]
    tokens += [
        *letters,
        *(f"##{letter}" for letter in letters),
        *(w for line in WORDS for w in line.split() if len(w) > 1),
    ]
    path = tmp_path_factory.mktemp("speller") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return tokenizer.load(path)


@pytest.fixture
def made(tmp_path) -> Callable[[str, str], str]:
    """made(name, text): the path of a new file with this text."""

    def write(name: str, text: str) -> str:
        path: Path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
