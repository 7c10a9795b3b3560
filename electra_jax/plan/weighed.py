"""What a compiled program costs, read from its text: operations, collectives, kernels, buffers, memory."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from electra_jax.plan import work
from electra_jax.plan.hlo import Computation, Instruction, Module, Source, parse

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_HOSTS = {"ONE_TO_ONE": "collective-permute"}  # the hosts' name of a kind, where it is another
# The targets of hand-written (Pallas) kernels, on a TPU and on a GPU.
KERNELS = ("tpu_custom_call", "__gpu$xla.gpu.triton")


@dataclass(frozen=True)
class Operation:
    """An instruction of the control flow; figures are of all its runs in one call of the program, on one device."""

    name: str
    opcode: str
    op_name: str
    source: Source | None
    runs: int
    cycles: int | None  # by the compiler's own estimate, where it made one
    flops: int  # of matrix products
    bytes: int  # moved in main memory
    kernel: (
        bool  # hand-written: figures are those its author declared, else its operands and results
    )


@dataclass(frozen=True)
class Collective:
    """One exchange between devices; `bytes` is the whole array on one device, times the runs.

    That is what all-reduce, reduce-scatter, all-to-all and permute take and what all-gather gives.
    """

    kind: str
    op_name: str
    source: Source | None
    runs: int
    bytes: int
    group: int  # devices that exchange; between slices: slices
    started: bool  # a start and a done with other work between them, not one blocking instruction
    hidden_cycles: int  # of the work between start and done, all runs
    between_slices: bool = False  # by the data-centre network, not the chips' own links
    begins: int = 0  # cycles of the work before it, all runs

    @property
    def name(self) -> str:
        """Its kind, and where it takes place if not inside a slice."""
        return f"{self.kind} between slices" if self.between_slices else self.kind

    @property
    def sent(self) -> float:
        """Bytes a device sends, in the best known algorithm (a ring)."""
        share = (self.group - 1) / self.group
        if self.kind == "all-reduce":
            return 2 * share * self.bytes
        if self.kind.startswith("collective"):
            return float(self.bytes)
        return share * self.bytes


@dataclass(frozen=True)
class Buffer:
    """An array in main memory that is neither argument nor result; bytes with padding."""

    array: str
    bytes: int
    op_name: str
    source: Source | None


@dataclass(frozen=True)
class Memory:
    """Bytes per device by kind, from the compiler's buffer assignment."""

    arguments: int
    outputs: int
    temporaries: int
    aliased: int  # outputs that take the place of arguments
    code: int

    @property
    def total(self) -> int:
        """What must fit."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclass(frozen=True)
class Weighed:
    """One call of a compiled program on one device."""

    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]
    buffers: tuple[Buffer, ...]  # largest first
    memory: Memory | None  # None: weighed from text alone
    unknown_loops: tuple[str, ...]  # counted as if they turned once

    @cached_property
    def flops(self) -> int:
        """FLOPs of the matrix products that are executed, kernels included."""
        return sum(o.flops for o in self.operations)

    @cached_property
    def bytes(self) -> int:
        """Bytes moved in main memory."""
        return sum(o.bytes for o in self.operations)

    @cached_property
    def cycles(self) -> int:
        """The compiler's estimates, summed; hand-written kernels and collectives have none."""
        return sum(o.cycles or 0 for o in self.operations)

    @property
    def kernels(self) -> tuple[Operation, ...]:
        """The hand-written ones."""
        return tuple(o for o in self.operations if o.kernel)

    def bytes_by_collective(self) -> dict[str, int]:
        """Name -> bytes."""
        total: Counter[str] = Counter()
        for c in self.collectives:
            total[c.name] += c.bytes
        return dict(total)


def weigh(compiled: Any) -> Weighed:
    """Weighs what `jax.jit(f).lower(...).compile()` returned."""
    stats = compiled.memory_analysis()
    memory = stats and Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )
    return weigh_text(compiled.as_text(), memory)


def weigh_text(text: str, memory: Memory | None = None) -> Weighed:
    """Weighs the text of a compiled program."""
    module = parse(text)
    operations: list[Operation] = []
    collectives: list[Collective] = []
    for instruction, computation, runs in module.control():
        operation = _operation(module, instruction, computation, runs)
        if operation is not None:
            operations.append(operation)
    for name, runs in module.runs.items():
        collectives += _collectives(module, name, runs)
        collectives += _between_slices(module, name, runs)
    return Weighed(
        operations=tuple(operations),
        collectives=tuple(collectives),
        buffers=tuple(sorted(_buffers(module), key=lambda b: -b.bytes)),
        memory=memory,
        unknown_loops=module.unknown_loops,
    )


def _operation(
    module: Module, instruction: Instruction, computation: Computation, runs: int
) -> Operation | None:
    kernel = instruction.opcode == "custom-call" and instruction.target in KERNELS
    flops = work.flops(module, instruction, computation)
    moved = work.traffic(module, instruction, computation)
    if kernel:
        flops, moved = _declared(instruction, computation, moved)
    cycles = instruction.cycles
    if not (cycles or flops or moved):
        return None
    origin = module.origin(instruction, computation)
    return Operation(
        name=instruction.name,
        opcode=instruction.opcode,
        op_name=origin.op_name,
        source=module.source(origin),
        runs=runs,
        cycles=None if cycles is None else cycles * runs,
        flops=flops * runs,
        bytes=moved * runs,
        kernel=kernel,
    )


def _declared(kernel: Instruction, computation: Computation, moved: int) -> tuple[int, int]:
    """(FLOPs, bytes) of a kernel: its author's cost estimate, else what its name and operands tell, and its bytes."""
    found = re.search(r'"cost_estimate":(\{[^}]*\})', kernel.attributes)
    if not found:
        return work.kernel_flops(kernel, computation), moved
    cost = json.loads(found[1])
    return int(cost.get("flops", 0)), int(cost.get("bytes_accessed", moved))


def _collectives(module: Module, name: str, runs: int) -> list[Collective]:
    """The exchanges of a computation, in the order they begin.

    An exchange runs beside other work in one of two ways: from a `-start` to its `-done`, or, on a TPU, through a
    chain of fusions that all name its channel, the first with AsyncCollectiveStart and the last with ...Done in it.
    """
    found: list[Collective] = []
    open_: dict[
        str, tuple[int, int]
    ] = {}  # name or channel -> (place in found, cycles when it started)
    cycles = 0
    computation = module.computations[name]
    for instruction in computation.values():
        done = instruction.opcode.endswith("-done") and instruction.operands[0] in open_
        if done:
            _close(found, open_.pop(instruction.operands[0]), cycles * runs)
        body = module.body(instruction)
        targets = {i.target for i in body.values()}
        for inner, around in [(i, body) for i in body.values()] or [(instruction, computation)]:
            kind = inner.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            channel = re.search(r"channel_id=\d+", inner.attributes)
            key = channel[0] if channel else inner.name
            if key in open_ and "AsyncCollectiveStart" not in targets:
                if "AsyncCollectiveDone" in targets:
                    _close(found, open_.pop(key), cycles * runs)
                continue
            if "AsyncCollectiveStart" in targets:
                open_[key] = len(found), cycles * runs
            elif instruction.opcode.endswith("-start"):
                open_[instruction.name] = len(found), cycles * runs
            found.append(_collective(module, inner, around, kind, runs))
        cycles += instruction.cycles or 0
    return found


def _close(found: list[Collective], opened: tuple[int, int], cycles: int) -> None:
    place, before = opened
    found[place] = replace(found[place], started=True, hidden_cycles=cycles - before)


def _collective(
    module: Module, instruction: Instruction, computation: Computation, kind: str, runs: int
) -> Collective:
    taken = sum(a.bytes for n in instruction.operands for a in computation[n].outputs)
    group = _group(instruction.attributes)
    return Collective(
        kind=kind,
        op_name=instruction.op_name,
        source=module.source(instruction),
        runs=runs,
        bytes=taken * (group if kind == "all-gather" else 1) * runs,
        group=group,
        started=False,
        hidden_cycles=0,
    )


def _between_slices(module: Module, name: str, runs: int) -> list[Collective]:
    """The exchanges of a computation with other slices, by the hosts: from a `send` to the `recv-done` of what comes
    back under the same name. What is exchanged inside the slice before and after that are collectives of their own.
    """
    found: dict[str, Collective] = {}
    cycles = 0
    computation = module.computations[name]
    for instruction in computation.values():
        if instruction.opcode == "send" and (kind := _said(instruction, "megascale_transfer_type")):
            found[_said(instruction, "host_transfer_rendezvous")] = Collective(
                kind=_HOSTS.get(kind, kind.lower().replace("_", "-")),
                op_name=instruction.op_name,
                source=module.source(instruction),
                runs=runs,
                bytes=instruction.outputs[0].bytes * runs,
                group=_slices(instruction.attributes),
                started=True,
                hidden_cycles=0,
                between_slices=True,
                begins=cycles * runs,
            )
        elif instruction.opcode == "recv-done":
            back = _said(computation[instruction.operands[0]], "host_transfer_rendezvous")
            if back in found:
                hidden = cycles * runs - found[back].begins
                found[back] = replace(found[back], hidden_cycles=hidden)
        cycles += instruction.cycles or 0
    return list(found.values())


def _said(instruction: Instruction, name: str) -> str:
    """A value that the compiler noted for those who carry an array from host to host; empty where it noted none."""
    found = re.search(rf'_xla_{name}="([^"]*)"', instruction.attributes)
    return found[1] if found else ""


def _slices(attributes: str) -> int:
    """How many slices exchange, in both notations of the compiler: "{1,2}x{0:7}", two slices and the devices of each,
    and {{100000,100001,200000,200001}}, devices by number, of which a slice has a hundred thousand.
    """
    if listed := re.search(r"_xla_megascale_target=\{\{([\d,]+)", attributes):
        return len({int(number) // 100_000 for number in listed[1].split(",")})
    if ranges := re.search(r'_xla_megascale_target="\{([\d,:]+)\}', attributes):
        ends = [part.split(":") for part in ranges[1].split(",")]
        return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)
    return 2  # in a notation we have not met; fewer do not exchange


def _group(attributes: str) -> int:
    """Devices of a replica group, in each of the notations XLA has had."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        size = 1
        for axis in re.findall(r"'(\w+)'", named[2]):
            size *= int(sizes[axis])
        return size
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return listed[1].count(",") + 1
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return pairs[1].count("{")
    return 1


def _buffers(module: Module) -> Iterator[Buffer]:
    results = _results(module.computations[module.entry])
    for instruction, computation, _ in module.control():
        opcode = instruction.opcode
        if opcode in work.FREE or opcode == "send" or opcode.endswith("-done"):
            continue
        outputs: Sequence[Any] = instruction.outputs
        if opcode.endswith("-start"):
            outputs = (
                outputs[1:2] if opcode == "slice-start" else outputs[: len(instruction.operands)]
            )
        for index, array in enumerate(outputs):
            if array.in_hbm and (instruction.name, index) not in results and array.allocated:
                origin = module.origin(instruction, computation)
                source = module.source(origin)
                yield Buffer(str(array), array.allocated, origin.op_name, source)


def _results(entry: Computation) -> set[tuple[str, int]]:
    """(instruction, index of output) of everything the program returns."""
    found: set[tuple[str, int]] = set()

    def trace(name: str, index: int) -> None:
        instruction = entry[name]
        found.add((name, index))
        if instruction.opcode == "tuple":
            trace(instruction.operands[index], 0)
        elif instruction.opcode == "get-tuple-element":
            at = re.search(r"index=(\d+)", instruction.attributes)
            trace(instruction.operands[0], int(at[1]) if at else 0)
        elif instruction.opcode in ("bitcast", "copy-done"):
            trace(instruction.operands[0], 0)

    root = next(i for i in entry.values() if i.root)
    for index in range(len(root.operands) if root.opcode == "tuple" else len(root.outputs)):
        trace(root.name, index)
    return found
