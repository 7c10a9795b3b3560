#!/usr/bin/env python3
"""Estimated cycles of the train step on a TPU that is not there, line by line, with hand-written kernels and without.

    python tools/tpu_cycles.py --config small --topology v5e:2x4 --batch 1024 --seq-len 128

Compiles the step of `electra-jax plan` and adds up what the compiler estimates for each instruction (loops times
their trip count) and, for the kernels, which it does not estimate, the larger of FLOPs / 50% of the peak and bytes /
70% of the bandwidth. The rows of the table are source lines of the package, and add up to the total. `--no-kernels`
compiles the step as it is where no kernel fits. Anything else of a config is set as in `electra-jax plan`:
--config.model.dropout=0.0. Needs the TPU compiler: pip install -e '.[tpu]'.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from electra_jax.ops.attention import tpu as attention
from electra_jax.ops.vocabulary import tpu as vocabulary
from electra_jax.plan import cost, topology
from electra_jax.plan.cost import Machine
from electra_jax.plan.step import TooLarge, compile_step, settle
from electra_jax.plan.stretches import described
from electra_jax.plan.weighed import Weighed
from electra_jax.pretrain.options import run_spec
from electra_jax.spec import load_config

GIB = 2**30


def cycles(weighed: Weighed, machine: Machine) -> dict[str, Any]:
    """Cycles of one step on one chip by source line and in all, temporaries and the largest buffer in bytes."""
    assert machine.clock is not None
    lines: Counter[str] = Counter()
    for o in weighed.operations:
        where = f"{o.source.file}:{o.source.line}" if o.source else o.opcode
        direction = "backward" if "transpose(" in o.op_name else "forward"
        network = re.search(r"generator|discriminator|embeddings", o.op_name)
        name = f"{where} {network[0] if network else ''} {direction}".replace("  ", " ")
        name += " (kernel)" if o.kernel else ""
        lines[name] += round(cost.seconds(o, machine) * machine.clock)
    estimate = cost.estimate(weighed, machine)
    return {
        "total": sum(lines.values()),
        "kernels": round(estimate.kernels * machine.clock),
        "exposed_exchange": round(estimate.exposed * machine.clock),
        "floor_compute": round(estimate.compute * machine.clock),
        "temporaries": weighed.memory.temporaries if weighed.memory else 0,
        "largest_buffer": f"{weighed.buffers[0].array} {weighed.buffers[0].bytes}",
        "collectives": dict(Counter(c.kind for c in weighed.collectives)),
        "lines": dict(lines.most_common()),
    }


def text(found: dict[str, Any], most: int) -> str:
    """The figures as lines; what is not among the `most` dearest is one of them."""
    lines = list(found["lines"].items())
    rest = sum(n for _, n in lines[most:])
    shown = [*lines[:most], (f"the other {len(lines) - most} lines", rest)][: len(lines)]
    head = [
        f"{found['total'] / 1e6:.1f} Mcycles, of them kernels {found['kernels'] / 1e6:.1f}; besides, exposed exchange "
        f"{found['exposed_exchange'] / 1e6:.1f}; all products at peak {found['floor_compute'] / 1e6:.1f}",
        f"temporaries {found['temporaries'] / GIB:.2f} GiB, largest buffer {found['largest_buffer']}, "
        f"collectives {found['collectives']}",
    ]
    return "\n".join(head + [f"{n / 1e6:8.2f} {n / found['total']:6.1%}  {w}" for w, n in shown])


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles the step and prints its cycles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="recipe or config file")
    parser.add_argument("--topology", default="v5e:2x4", help="as in electra-jax plan")
    parser.add_argument("--batch", type=int, required=True, help="rows of all chips")
    parser.add_argument("--seq-len", type=int, required=True, help="tokens a row")
    parser.add_argument("--vocab-size", type=int, default=30522)
    parser.add_argument("--no-kernels", action="store_true", help="compile without them")
    parser.add_argument("--lines", type=int, default=40, help="of the table (default: 40)")
    parser.add_argument("--json", action="store_true", help="one object, all lines")
    options, more = parser.parse_known_args(arguments)
    if unknown := [m for m in more if not m.startswith("--config.")]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    jax.config.update("jax_platforms", "cpu")
    if options.no_kernels:
        for kernels in (attention, vocabulary):
            kernels.supports = lambda *_, **__: "anything, by --no-kernels"
    slice = topology.parse(options.topology)
    changed = [m.removeprefix("--config.") for m in more]
    config = load_config(options.config, [f"train.batch={options.batch}", *changed])
    run = run_spec(config.to_dict())
    data = described(options.config, "", options.seq_len, options.vocab_size)
    chips = topology.devices(slice)
    run = settle(run, data, chips, int(slice.chip.available_gib * GIB))
    try:
        compiled = compile_step(run, data, chips)
    except TooLarge as refusal:
        raise SystemExit(
            f"does not fit: needs {refusal.needed / GIB:.2f} of {refusal.limit / GIB:.2f} GiB"
        ) from refusal
    found = cycles(compiled.weighed, cost.tpu(slice))
    print(json.dumps(found) if options.json else text(found, options.lines))


if __name__ == "__main__":
    main()
