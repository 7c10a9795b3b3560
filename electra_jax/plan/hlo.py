"""Compiled HLO text read as computations of instructions: how often each runs, and the line it comes from.

`compiled.as_text()` is a schedule: the instructions of a computation run in the order they are written. Control flows
from the entry through `while`, `conditional` and `call`; a fusion or an async wrapper runs as one instruction.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

# Their lines call what others hand to them: those of the others are meant.
_PASSES_ON = ("ops/kernel.py", "ops/barrier.py")
_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(calls|to_apply|condition|body|true_computation|false_computation)=%?([\w.\-]+)"
)
# Instructions that compilers add, without metadata, to bring an array elsewhere.
_MOVES = {
    "bitcast",
    "copy",
    "copy-done",
    "copy-start",
    "get-tuple-element",
    "reshape",
    "slice-done",
    "slice-start",
}
_BODIES = {"fusion": "calls", "async-start": "calls", "call-start": "to_apply"}
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Array:
    """An array as it lies in memory."""

    dtype: str
    dims: tuple[int, ...]
    layout: str  # "minor,..,major:T(tile)S(space)"

    @property
    def elements(self) -> int:
        """How many numbers."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without padding."""
        return -(-self.elements * bits(self.dtype) // 8)

    @property
    def allocated(self) -> int:
        """Bytes with the padding of the tiles a TPU stores."""
        tile = re.search(r"T\(([\d,]+)\)", self.layout)
        if not tile or not self.dims:
            return self.bytes
        order = [int(d) for d in self.layout.partition(":")[0].split(",") if d]
        sizes = [self.dims[d] for d in order]  # minor first
        for i, edge in enumerate(reversed(tile[1].split(","))):
            if i < len(sizes):
                sizes[i] = -(-sizes[i] // int(edge)) * int(edge)
        return -(-math.prod(sizes) * bits(self.dtype) // 8)

    @property
    def in_hbm(self) -> bool:
        """Whether it lies in main memory, not in a memory on the chip's core."""
        space = re.search(r"S\((\d+)\)", self.layout)
        return space is None or space[1] == "0"

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


def bits(dtype: str) -> int:
    """Bits of one number: f32 -> 32, bf16 -> 16, f8e4m3fn -> 8, s4 -> 4."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type, those of a tuple in order."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        sizes = tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d)
        found.append(Array(dtype, sizes, layout))
    return tuple(found)


@dataclass(frozen=True)
class Instruction:
    """One instruction; `attributes` is everything after its operands."""

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    inside: (
        str  # the text between the operands' parentheses: a parameter's number, a constant's value
    )
    attributes: str
    root: bool

    @cached_property
    def outputs(self) -> tuple[Array, ...]:
        """What it writes."""
        return arrays(self.type)

    @cached_property
    def cycles(self) -> int | None:
        """The compiler's own estimate for one run; None where it made none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None

    @property
    def op_name(self) -> str:
        """The path of JAX names that it was compiled from, without the jit's own."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return re.sub(r"^jit\(\w+\)/", "", found[1]) if found else ""

    @property
    def target(self) -> str:
        """The target of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @cached_property
    def calls(self) -> list[tuple[str, str]]:
        """(role, computation) of every computation it names."""
        found = list(_CALLS.findall(self.attributes))
        for branches in _BRANCHES.findall(self.attributes):
            found += [
                ("branch", name.strip().removeprefix("%")) for name in branches.split(",") if name
            ]
        return [("branch" if role.endswith("_computation") else role, name) for role, name in found]


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Source:
    """A line of a program."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}".rstrip()


@dataclass(frozen=True)
class Module:
    """A compiled program; make one with `parse`."""

    computations: dict[str, Computation]
    entry: str
    names: dict[str, dict[int, str]] = field(repr=False)  # of files and functions
    places: dict[str, dict[int, dict[str, int]]] = field(repr=False)  # locations and stack frames

    @cached_property
    def runs(self) -> dict[str, int]:
        """How often each computation of the control flow runs: the entry once, a loop's body as often as it turns.

        All branches of a conditional count; a loop whose trip count cannot be read counts once (see `unknown_loops`).
        """
        return self._walk[0]

    @cached_property
    def fused(self) -> dict[str, int]:
        """The same for the computations inside fusions and async wrappers."""
        return self._walk[1]

    @cached_property
    def unknown_loops(self) -> tuple[str, ...]:
        """Names of the loops whose trip count the text does not tell."""
        loops = (i for name in self.runs for i in self.computations[name].values())
        return tuple(i.name for i in loops if i.opcode == "while" and self.trips(i) is None)

    @cached_property
    def _walk(self) -> tuple[dict[str, int], dict[str, int]]:
        control: Counter[str] = Counter()
        fused: Counter[str] = Counter()

        def visit(name: str, times: int) -> None:
            control[name] += times
            for instruction in self.computations[name].values():
                if instruction.opcode == "while":
                    turns = self.trips(instruction)
                    turns = 1 if turns is None else turns
                    for role, called in instruction.calls:
                        visit(called, times * (turns + (role == "condition")))
                elif instruction.opcode in ("conditional", "call"):
                    for _, called in instruction.calls:
                        visit(called, times)
                elif self.body(instruction):
                    visit_body(instruction, times)

        def visit_body(instruction: Instruction, times: int) -> None:
            for name in dict(instruction.calls).values():
                fused[name] += times
                for inner in self.computations[name].values():
                    if self.body(inner):
                        visit_body(inner, times)

        visit(self.entry, 1)
        return dict(control), dict(fused)

    def trips(self, loop: Instruction) -> int | None:
        """How often a `while` turns: as the compiler noted it, else from a condition `counter < constant`."""
        noted = re.search(r'"known_trip_count":\{"n":"?(\d+)"?\}', loop.attributes)
        if noted:
            return int(noted[1])
        condition = dict(loop.calls).get("condition")
        if condition is None:
            return None
        return self._limit(self.computations[condition])

    def _limit(self, condition: Computation) -> int | None:
        """The constant of the one comparison `less than` of a condition, fused or not; counters start at 0."""
        within = [condition]
        for instruction in condition.values():
            within += [self.computations[c] for r, c in instruction.calls if r == "calls"]
        found = [(i, c) for c in within for i in c.values() if i.opcode == "compare"]
        if len(found) != 1 or "direction=LT" not in found[0][0].attributes:
            return None
        constants = [
            i.inside
            for c in within
            for i in c.values()
            if i.opcode == "constant" and not i.outputs[0].dims
        ]
        return int(constants[0]) if len(constants) == 1 and constants[0].isdigit() else None

    def control(self) -> Iterator[tuple[Instruction, Computation, int]]:
        """Every instruction of the control flow with its computation and how often it runs, in order."""
        for name, times in self.runs.items():
            computation = self.computations[name]
            for instruction in computation.values():
                yield instruction, computation, times

    def body(self, instruction: Instruction) -> Computation:
        """What runs as one instruction: the computation of a fusion or an async wrapper, or of a call that another
        core takes (a TPU's SparseCore exchanges arrays so); empty for anything else.
        """
        role = _BODIES.get(instruction.opcode)
        name = dict(instruction.calls).get(role) if role else None
        return self.computations[name] if name else {}

    def origin(self, instruction: Instruction, computation: Computation) -> Instruction:
        """What an instruction was compiled from: of a move that the compiler put in, the one whose result it moves."""
        while (
            "metadata=" not in instruction.attributes
            and instruction.opcode in _MOVES
            and instruction.operands
        ):
            instruction = computation[instruction.operands[0]]
        return instruction

    def source(self, instruction: Instruction, prefer: str = "electra_jax/") -> Source | None:
        """The innermost line under a folder named `prefer` that it was compiled from, else the innermost line."""
        plain = re.search(r'source_file="([^"]*)"(?: source_line=(\d+))?', instruction.attributes)
        if plain:
            return Source(_short(plain[1], prefer), int(plain[2] or 0), "")
        frame = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        lines = list(self._frames(int(frame[1]))) if frame else []
        ours = [line for line in lines if f"/{prefer}" in f"/{line.file}"]
        ours = [line for line in ours if not line.file.endswith(_PASSES_ON)] or ours
        best = next(iter(ours or lines), None)
        return best and Source(_short(best.file, prefer), best.line, best.function)

    @cached_property
    def _parents_from(self) -> int:
        """What stands for "no parent": the first frame never has one, and some versions print 1 for it, others 0."""
        return self.places["StackFrames"].get(1, {}).get("parent_frame_id", 0)

    def _frames(self, number: int) -> Iterator[Source]:
        """The stack of a frame, innermost line first."""
        frames, files, functions = self.places["StackFrames"], *self.names.values()
        while frame := frames.get(number):
            place = self.places["FileLocations"].get(frame["file_location_id"])
            if place:
                file, function = files[place["file_name_id"]], functions[place["function_name_id"]]
                yield Source(file, place["line"], function)
            parent = frame.get("parent_frame_id", 0) - self._parents_from
            number = parent if parent < number else 0


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`. Raises ValueError for text without an entry computation."""
    computations: dict[str, Computation] = {}
    names: dict[str, dict[int, str]] = {"FileNames": {}, "FunctionNames": {}}
    places: dict[str, dict[int, dict[str, int]]] = {"FileLocations": {}, "StackFrames": {}}
    entry = ""
    current: Computation | None = None
    table = ""
    for line in text.splitlines():
        if line in names or line in places:
            current, table = None, line
        elif header := _HEADER.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line == "}":
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current[found[2]] = _instruction(found[2], found[3], found[1] is not None)
        elif table and line[:1].isdigit():
            number, _, value = line.partition(" ")
            if table in names:
                names[table][int(number)] = value.strip('"')
            else:
                pairs = re.findall(r"(\w+)=(\d+)", value)
                places[table][int(number)] = {key: int(digits) for key, digits in pairs}
    if not entry:
        raise ValueError("this is no compiled HLO: it has no ENTRY computation")
    return Module(computations, entry, names, places)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, _ = text[end:].partition("(")
    start = end + len(opcode)
    close = _closing(text, start)
    inside = text[start + 1 : close]
    return Instruction(
        name,
        opcode.strip(),
        text[:end],
        tuple(_NAME.findall(inside)),
        inside,
        text[close + 1 :],
        root,
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for at in re.finditer(r"[()]", text[start:]):
        depth += 1 if at[0] == "(" else -1
        if depth == 0:
            return start + at.start()
    return len(text) - 1


def _short(file: str, prefer: str) -> str:
    """The part of a path from the preferred folder, or the package it was installed as, on."""
    for mark in (prefer, "site-packages/"):
        _, found, rest = f"/{file}".rpartition(f"/{mark}")
        if found:
            return rest if mark.startswith("site") else mark + rest
    return file.rpartition("/")[2]
