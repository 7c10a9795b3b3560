"""The table of an operation: which implementation is taken, what is reported, and what is recorded."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from electra_jax import ops
from electra_jax.ops import dense, kernel, machine
from electra_jax.ops.kernel import Implementation, Operation


def mesh(platform: str, kind: str, devices: int = 2) -> AbstractMesh:
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return AbstractMesh((devices,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)


class Inputs(NamedTuple):
    x: jax.Array
    scale: jax.Array


def narrow(inputs: Inputs, factor: int) -> str:
    """Supports two rows of a device, and no other factor than 1."""
    assert inputs.scale.shape == (3,)
    rows = inputs.x.shape[0]
    return "" if rows == 2 and factor == 1 else f"{rows} rows times {factor}"


def times(inputs: Inputs, factor: int) -> jax.Array:
    return inputs.x * inputs.scale * factor


TABLE = Operation(
    "the_test",
    Implementation(name="tpu", runs_on="tpu", run=times, supports=narrow, kernel=True),
    Implementation(name="by_hand", runs_on="cpu", run=times),
    Implementation(name="plain", run=times),
    rows=("x",),
)


INPUTS = Inputs(jnp.ones((2, 3)), jnp.ones(3))


def taken(where: AbstractMesh, rows: int, factor: int = 1) -> set[str]:
    inputs = Inputs(jnp.ones((rows, 3)), jnp.ones(3))
    with kernel.recorded() as record, jax.sharding.use_abstract_mesh(where):
        jax.make_jaxpr(lambda x: TABLE(x, factor=factor))(inputs)
    return record


def test_the_first_that_supports_the_case_is_taken(capfd):
    """Catches a kernel that is asked for the rows of all devices, one taken on another platform or for what it does
    not support, and a fallback that is reported at every layer or not at all."""
    kernel.report.cache_clear()
    chips = mesh("tpu", "TPU v5 lite")
    assert taken(chips, 4) == {"the_test/tpu"}
    assert taken(mesh("cpu", "cpu"), 4) == {"the_test/by_hand"}
    assert taken(mesh("cuda", "NVIDIA H100"), 4) == {"the_test/plain"}
    assert capfd.readouterr().err == ""
    for _ in range(2):
        assert taken(chips, 3) == taken(chips, 8) == taken(chips, 4, factor=2) == {"the_test/plain"}
    assert capfd.readouterr().err.splitlines() == [
        f"the test without the TPU's kernel: it does not support {reason}"
        for reason in ("3 rows on 2 devices", "4 rows times 1", "2 rows times 2")
    ]


def test_outside_a_mesh_the_default_backend_is_meant(monkeypatch):
    """Catches code traced bare that takes what no platform takes, and kernels where nothing says how rows are split."""
    assert machine.platform() == jax.default_backend() == "cpu"
    with kernel.recorded() as record:
        jax.grad(lambda x: dense.product(x, jnp.ones((3, 2))).sum())(jnp.ones((1, 2, 3)))
    assert record == {"product/by_hand", "over_rows/turned", "apart/barrier"}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with kernel.recorded() as record:
        TABLE(INPUTS, factor=1)
    assert record == {"the_test/plain"}


def test_records_are_nested_and_end():
    """Catches an operation that is missing in the outer of two records, or added to one that is closed."""
    with kernel.recorded() as outer:
        with kernel.recorded() as inner:
            TABLE(INPUTS, factor=1)
        assert inner == outer == {"the_test/by_hand"}
        with kernel.plain():
            TABLE(INPUTS, factor=1)
    TABLE(INPUTS, factor=2)
    assert inner == {"the_test/by_hand"} and outer == {"the_test/by_hand", "the_test/plain"}


def test_kernels_are_imported_where_they_run():
    """Catches a table that imports Pallas on every platform: a second of every start."""
    kernels = re.compile(r"^\s*(from|import) .*\b(pallas|hopper\w*|tpu|tpu_core|ptx|cudnn)\b", re.M)
    for path in Path(ops.__path__[0]).rglob("*.py"):
        if path.name in ("api.py", "plain.py", "__init__.py", "kernel.py", "machine.py"):
            assert not kernels.search(path.read_text()), path


def operations() -> list[Operation]:
    """All of the package."""
    names = [
        module.name
        for module in pkgutil.walk_packages(ops.__path__, "electra_jax.ops.")
        if module.name.rpartition(".")[2].partition("_")[0] not in ("cudnn", "hopper", "ptx", "tpu")
    ]
    values = [x for name in names for x in vars(importlib.import_module(name)).values()]
    return [x for x in values if isinstance(x, Operation)]


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_every_table_has_its_plain_implementation_and_real_modules(operation):
    """Catches a module that is misspelled or lacks `run` or `supports`, which nobody would see without its device."""
    assert [x.name for x in operation.table].count("plain") == 1
    for implementation in operation.table:
        if implementation.kernel:
            with pytest.raises(TypeError, match="required"):
                implementation.run()
            with pytest.raises(TypeError, match="required"):
                implementation.supports()
