"""The wheel holds all that is needed: installed elsewhere, it runs the quickstart from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The wheel built from this checkout, with the build tools that are installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(root)], check=True, capture_output=True, text=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel; the dependencies are those of this one."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    (site,) = home.glob("lib/python*/site-packages")
    # Dependencies by path, behind the new environment's own packages; an editable install of the checkout, which
    # works through a .pth file or an import hook of the folder, is not followed from there.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin"


def environment() -> dict[str, str]:
    """As a user has it: one device, no path to the checkout."""
    dropped = ("XLA_FLAGS", "PYTHONPATH", "JAX_PLATFORMS")
    return {k: v for k, v in os.environ.items() if k not in dropped} | {"JAX_PLATFORMS": "cpu"}


@pytest.mark.slow
def test_the_wheel_carries_recipes_and_licence(wheel: Path):
    """Catches a wheel without configs/, with tests, or with a second package."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"electra_jax", "electra_jax-0.1.0.dist-info"}
    assert {"electra_jax/configs/small.py", "electra_jax/cli/commands.py"} <= set(names)
    assert "electra_jax/plan/prices.csv" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [n for n in names if "test" in n or n.endswith(".pyc")]


@pytest.mark.slow
def test_a_recipe_by_name_works_anywhere(installed: Path, tmp_path: Path):
    """Catches `--config small` that is found in a checkout only: the error must be about data, not the config."""
    command = [installed / "electra-jax", "pretrain", "--config", "small", "--workdir", "run"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "--config.data.path" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_quickstart_from_an_empty_folder(installed: Path, tmp_path: Path, root: Path):
    """Catches a quickstart that needs the checkout or the network, or does not end."""
    where = [str(installed / "python"), "-c", "import electra_jax; print(electra_jax.__file__)"]
    module = subprocess.run(
        where, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert not Path(module.stdout.strip()).is_relative_to(root)
    result = subprocess.run(
        [installed / "electra-jax", "quickstart"],
        cwd=tmp_path,
        env=environment() | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    out = result.stdout
    for part in (
        "$ electra-jax vocab ",
        "$ electra-jax pretrain ",
        "before",
        "without a model",
        "replaced: was",
    ):
        assert part in out
    assert ("RIGHT:" in out) != ("WRONG:" in out)
    assert (tmp_path / "quickstart" / "hf" / "discriminator" / "model.safetensors").is_file()
