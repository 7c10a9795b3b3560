"""What one instruction of a compiled program has to do: FLOPs of its matrix products, bytes it moves in main memory."""

import functools
import math
import re
from collections.abc import Callable, Iterator

from electra_jax.plan.hlo import Array, Computation, Instruction, Module

# These name, group or wait; the work is in what they name.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
    "partition-id", "replica-id", "after-all", "opt-barrier", "async-start", "async-update", "domain",
}  # fmt: skip
_SLICES = {"dynamic-slice", "slice", "gather"}  # read of their operand only what they return
_VIEWS = {"bitcast", "copy", "reshape", "transpose"}


def flops(module: Module, instruction: Instruction, computation: Computation) -> int:
    """FLOPs of the matrix products in one run of an instruction, 2 a multiply-add; those of a fusion are its body's."""
    if instruction.opcode == "dot":
        return _dot(instruction, computation)
    if instruction.opcode == "convolution":
        return _convolution(instruction, computation)
    body = module.body(instruction)
    return sum(flops(module, inner, body) for inner in body.values())


def _dot(dot: Instruction, computation: Computation) -> int:
    lhs = computation[dot.operands[0]].outputs[0]
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    dims = [int(d) for d in contracted[1].split(",") if d] if contracted else []
    return 2 * dot.outputs[0].elements * math.prod(lhs.dims[d] for d in dims)


def _convolution(conv: Instruction, computation: Computation) -> int:
    """A TPU's matrix products are convolutions; batch dimensions become dilated windows, mostly over holes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", conv.attributes)
    if labels is None:
        return 0
    lhs, rhs = (computation[name].outputs[0].dims for name in conv.operands[:2])
    out = conv.outputs[0].dims
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", _window(conv)))
    fields = {name: value.split("x") for name, value in window.items()}
    places = 1
    for n in range(len(labels[1]) - 2):
        pad = fields.get("pad", ["0_0"] * (n + 1))[n].split("_")
        places *= _places(
            lhs[labels[1].index(str(n))],
            out[labels[3].index(str(n))],
            rhs[labels[2].index(str(n))],
            *(
                int(fields[key][n]) if key in fields else 1
                for key in ("stride", "lhs_dilate", "rhs_dilate")
            ),
            int(pad[0]),
        )
    groups = re.search(r"batch_group_count=(\d+)", conv.attributes)
    rows = lhs[labels[1].index("b")] // int(groups[1] if groups else 1)
    return 2 * places * rows * out[labels[3].index("f")] * rhs[labels[2].index("i")]


def _window(conv: Instruction) -> str:
    found = re.search(r"window=\{([^}]*)\}", conv.attributes)
    return found[1] if found else ""


@functools.lru_cache(maxsize=4096)
def _places(
    size: int, out: int, kernel: int, stride: int, lhs_dilate: int, rhs_dilate: int, low: int
) -> int:
    """Pairs of an output and a kernel position that meet a number of the input, not padding or a hole."""
    count = 0
    for k in range(kernel):
        at = k * rhs_dilate - low
        if stride == lhs_dilate == 1:
            count += max(0, min(out, size - at) - max(0, -at))
        else:
            positions = range(at, at + out * stride, stride)
            end = (size - 1) * lhs_dilate
            count += sum(1 for p in positions if 0 <= p <= end and p % lhs_dilate == 0)
    return count


# Products over rows x length x length x width in our kernels for GPUs, which Triton lets declare nothing.
_ATTENTION = {"attention_forward": 2, "attention_queries": 3, "attention_keys": 4}


def kernel_flops(kernel: Instruction, computation: Computation) -> int:
    """FLOPs of one of our kernels for GPUs, by its name and its arrays; 0 for those without products."""
    found = re.search(r"(\w+)/pallas_call$", kernel.op_name)
    name = found[1] if found else ""
    arrays = [a for n in kernel.operands if n in computation for a in computation[n].outputs]
    if name in _ATTENTION:
        # All rows are as if full: [B, L, 3 D] of queries, keys and values side by side comes first of three dims.
        rows, length, joined = next(a.dims for a in arrays if len(a.dims) == 3)
        return _ATTENTION[name] * 2 * rows * length**2 * (joined // 3)
    if name in ("vocab_forward", "vocab_backward"):
        # Hidden states [K, E] and the table [V, E] side by side; backward the logits' slopes [K, a part of V].
        hidden, table = [a.dims for a in arrays if a.dtype == "bf16" and len(a.dims) == 2][:2]
        ids = kernel.outputs[0].dims[-1] if name == "vocab_backward" else table[0]
        return 2 * hidden[0] * hidden[1] * ids
    return 0


def traffic(module: Module, instruction: Instruction, computation: Computation) -> int:
    """Bytes one run reads from and writes to main memory, an estimate: slices read what they return, updates in place
    write what they change, and everything else touches its operands and results once.
    """
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done"):
        return 0
    operands = [computation[name] for name in instruction.operands if name in computation]
    outputs = instruction.outputs
    if opcode == "slice-start":  # ((operands), result, context)
        return _in_hbm(operands[0].outputs, outputs[1].bytes) + _in_hbm(outputs[1:2])
    if opcode == "send":  # ((operand), context, token), which is no copy
        return _in_hbm(operands[0].outputs)
    if opcode.endswith("-start"):  # of asynchronous copies and collectives: (buffers, context)
        return sum(_in_hbm(o.outputs) for o in operands) + _in_hbm(outputs[: len(operands)])
    if opcode in _SLICES:
        return 2 * _in_hbm(outputs)
    if opcode == "dynamic-update-slice":
        return 2 * _in_hbm(operands[1].outputs)
    body = module.body(instruction)
    if not body:
        return sum(_in_hbm(o.outputs) for o in operands) + _in_hbm(outputs)
    return _fusion(operands, outputs, body)


def _fusion(operands: list[Instruction], outputs: tuple[Array, ...], body: Computation) -> int:
    parameters = {int(i.inside): i for i in body.values() if i.opcode == "parameter"}
    users = _users(body)
    total = 0
    updated = {u.operands[0]: u for u in body.values() if u.opcode == "dynamic-update-slice"}
    in_place = 0
    for number, operand in enumerate(operands):
        inside = parameters.get(number)
        whole = _in_hbm(operand.outputs)
        if inside is None or not whole:
            total += whole
            continue
        readers = users(inside.name)
        if readers and all(r.opcode in _SLICES for r in readers):
            total += min(whole, sum(a.bytes for r in readers for a in r.outputs))
        elif inside.name in updated and len(readers) == 1:
            change = sum(a.bytes for a in body[updated[inside.name].operands[1]].outputs)
            total += min(whole, change)
            in_place += max(0, whole - change)
        else:
            total += whole
    return total + max(0, _in_hbm(outputs) - in_place)


def _users(body: Computation) -> Callable[[str], list[Instruction]]:
    """A function from a name to the instructions that read it, looking through views."""
    direct: dict[str, list[Instruction]] = {}
    for instruction in body.values():
        for name in instruction.operands:
            direct.setdefault(name, []).append(instruction)

    def through(name: str) -> Iterator[Instruction]:
        for user in direct.get(name, []):
            if user.opcode in _VIEWS and not user.root:
                yield from through(user.name)
            else:
                yield user

    return lambda name: list(through(name))


def _in_hbm(arrays: tuple[Array, ...], at_most: int | None = None) -> int:
    total = sum(a.bytes for a in arrays if a.in_hbm)
    return total if at_most is None else min(total, at_most)
