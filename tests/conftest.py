"""What all tests share: eight CPU devices, the shared corpora, and the choice to go without PyTorch."""

import ast
import os
from pathlib import Path

# Before jax starts: meshes are tested on one machine, on the CPU whatever else it has.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
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
