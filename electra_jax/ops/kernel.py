"""Operations with several implementations: an ordered table, of which the first that supports the case is taken.

    BIAS_GELU = Operation(
        "bias_gelu",
        in_module("gelu.hopper", runs_on="hopper"),
        Implementation(name="plain", run=_plain),
        rows=("h_BxLxF",),
    )
    y_BxLxF = BIAS_GELU(Inputs(h_BxLxF, bias_F))

What was taken while a program was traced is recorded on request: `with recorded() as taken: ...`.
"""

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from electra_jax.ops import machine

PLAIN = "plain"  # the implementation that every table has: array functions, differentiated automatically
_records: list[set[str]] = []
_plain_depth = 0


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One implementation of an operation.

    `supports` takes the arguments of `run` and returns the reason why it cannot run them, empty where it can. A
    kernel is called by each device for its own rows, and is asked for the shapes that one device has.
    """

    name: str
    run: Callable[..., Any]
    supports: Callable[..., str] = lambda *_, **__: ""
    runs_on: str = "any"  # any, cpu, gpu, hopper (a GPU that is an H100 or H200) or tpu
    kernel: bool = False

    def runs_here(self) -> bool:
        """Whether the machine that the program being traced is made for is one of those it runs on.

        No kernel runs outside a mesh, which alone says how rows are split over devices.
        """
        if self.kernel and jax.sharding.get_abstract_mesh().empty:
            return False
        if self.runs_on == "hopper":
            return machine.card() is machine.HOPPER and _has_triton()
        return self.runs_on in ("any", machine.platform())


def in_module(name: str, *, runs_on: str) -> Implementation:
    """The kernel of this module of `electra_jax.ops`, its `run` and `supports`; imported when it is first asked."""

    def attribute(which: str) -> Callable[..., Any]:
        module = f"electra_jax.ops.{name}"
        return lambda *a, **options: getattr(importlib.import_module(module), which)(*a, **options)

    short, (run, supports) = name.rpartition(".")[2], map(attribute, ("run", "supports"))
    return Implementation(name=short, run=run, supports=supports, runs_on=runs_on, kernel=True)


class Operation:
    """An operation and the table of its implementations, the preferred one first.

    An operation with kernels takes one NamedTuple of arrays and trees of arrays; `rows` names those that are split by
    rows along their first axis, as the result is. The first of its fields is one of them.
    """

    def __init__(self, name: str, *table: Implementation, rows: tuple[str, ...] = ()) -> None:
        self.name, self.table, self.rows = name, table, rows

    def __call__(self, *arrays: Any, **options: Hashable) -> Any:
        """The result of the first implementation that runs here and supports these arrays and options.

        A kernel that is passed over is reported once a process, with what it does not support.
        """
        chosen = self._choose(arrays, options)
        for record in _records:
            record.add(f"{self.name}/{chosen.name}")
        if chosen.kernel:
            return _on_every_device(chosen.run, self.rows, tuple(options.items()))(*arrays)
        return chosen.run(*arrays, **options)

    def _choose(self, arrays: Sequence[Any], options: dict[str, Hashable]) -> Implementation:
        if _plain_depth:
            return next(x for x in self.table if x.name == PLAIN)
        for implementation in filter(Implementation.runs_here, self.table):
            reason = self._unsupported(implementation, arrays, options)
            if not reason:
                return implementation
            if implementation.kernel:
                what = self.name.replace("_", " ")
                whose = "TPU" if machine.platform() == "tpu" else "GPU"
                report(f"{what} without the {whose}'s kernel: it does not support {reason}")
        raise NotImplementedError(f"{self.name}: no implementation supports this")

    def _unsupported(
        self, implementation: Implementation, arrays: Sequence[Any], options: dict[str, Hashable]
    ) -> str:
        if not implementation.kernel:
            return implementation.supports(*arrays, **options)
        devices, (inputs,) = machine.devices(), arrays
        batch = inputs[0].shape[0]
        if batch % devices:
            return f"{batch} rows on {devices} devices"

        def of_one(name: str, field: Any) -> Any:
            n = devices if name in self.rows else 1
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((x.shape[0] // n, *x.shape[1:]), x.dtype), field
            )

        shapes = {name: of_one(name, field) for name, field in inputs._asdict().items()}
        return implementation.supports(type(inputs)(**shapes), **options)


@functools.cache
def _on_every_device(
    run: Callable[..., Any], rows: tuple[str, ...], options: tuple[tuple[str, Hashable], ...]
) -> Callable[..., Any]:
    """One function for all layers, so that JAX traces a kernel and makes its code once, not for every layer."""
    with_options = functools.partial(run, **dict(options))
    return jax.jit(lambda inputs: on_rows(with_options, inputs, rows))


def on_rows(function: Callable[[Any], Any], inputs: Any, rows: Sequence[str]) -> Any:
    """The function's result where every device of the mesh calls it for its own rows of the fields in `rows`."""
    split = P(jax.sharding.get_abstract_mesh().axis_names)
    specs = type(inputs)(*(split if name in rows else P() for name in inputs._fields))
    # A kernel does not state how its results vary over the mesh, which the check would need.
    return jax.shard_map(function, in_specs=(specs,), out_specs=split, check_vma=False)(inputs)


@contextlib.contextmanager
def recorded() -> Iterator[set[str]]:
    """A set that gets the "operation/implementation" of every operation that is traced inside the context.

    JAX does not trace again what it has compiled for the same shapes: then the set stays empty.
    """
    taken: set[str] = set()
    _records.append(taken)
    try:
        yield taken
    finally:
        _records[:] = [record for record in _records if record is not taken]


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Has every operation that is traced inside the context take its plain implementation, on any machine."""
    global _plain_depth
    _plain_depth += 1
    try:
        yield
    finally:
        _plain_depth -= 1


def _has_triton() -> bool:
    if importlib.util.find_spec("jax.experimental.pallas.triton") is None:
        report("no kernels for this GPU: this jax has no Triton backend of Pallas any more")
        return False
    return True


@functools.cache
def report(line: str) -> None:
    """Writes the line to stderr once a process, above a progress bar if one is shown."""
    tqdm.write(line, file=sys.stderr)
