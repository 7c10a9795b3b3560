#!/usr/bin/env python3
"""Times the GPU's kernels one by one against the same operations as XLA compiles them.

    python tools/bench_kernels.py                      # the shapes of small at 128 tokens and of base at 512
    python tools/bench_kernels.py --only attention

A row is an operation and its gradients, in bfloat16: microseconds of the device, the sum over its kernels in a trace
of three calls; and how far result and gradients are from float32 computation, as the largest relative error (in norm).
Prints the table of docs/performance.md. Needs an H100 or H200.
"""

import argparse
import functools
import glob
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.ops import machine
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.attention import Mask, self_attention
from electra_jax.ops.attention import hopper as attention_gpu
from electra_jax.ops.attention import inputs as attention
from electra_jax.ops.gelu import bias_gelu
from electra_jax.ops.gelu import hopper as gelu_gpu
from electra_jax.ops.gelu import inputs as gelu
from electra_jax.ops.norm import hopper as norm_gpu
from electra_jax.ops.norm import hopper_residual as residual_gpu
from electra_jax.ops.norm import norm, residual_norm
from electra_jax.ops.norm.plain import Normed, Residual
from electra_jax.ops.vocabulary import hopper as vocabulary_gpu
from electra_jax.ops.vocabulary import tiles
from electra_jax.ops.vocabulary.slots import HeadOptions, Inputs

CALLS = 3  # a trace


class Shape(NamedTuple):
    """A network's shapes on one device."""

    rows: int
    length: int
    heads: int
    ffn: int
    slots: int
    embedding: int
    vocab: int

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return 64 * self.heads


SHAPES = (Shape(512, 128, 4, 1024, 19, 128, 30_522), Shape(64, 512, 12, 3072, 77, 768, 30_522))


class Operation(NamedTuple):
    """As array functions and as a kernel, of the same arrays; all of them have gradients."""

    name: str
    plain: Callable[..., Any]  # an array, or several
    kernel: Callable[..., Any]
    arrays: tuple[jax.Array, ...]


def operations(shape: Shape, dropout: float, interpret: bool = False) -> Iterator[Operation]:
    """Those of this shape that the rate of dropout matters to; without dropout, all."""
    s = shape
    rows = f"{s.rows} x {s.length}"
    noise = noise_ops.for_rows(jax.random.key(1), jnp.arange(s.rows)) if dropout else None
    docs_L = (jnp.arange(s.length) < s.length - 5).astype(jnp.int32)
    mask = Mask(jnp.broadcast_to(docs_L, (s.rows, s.length)))
    options: dict[str, Any] = {"dropout": dropout, "interpret": interpret}
    rate = f", dropout {dropout:g}"

    def draw(number: int, *sizes: int, dtype: Any = jnp.bfloat16, scale: float = 1.0) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(0), number)
        return (scale * jax.random.normal(key, sizes)).astype(dtype)

    vector = functools.partial(draw, dtype=jnp.float32)
    h = draw(1, s.rows, s.length, s.width)
    yield Operation(
        f"attention, {rows}, {s.heads} heads{rate}",
        lambda q, b: self_attention(q, b, mask, heads=s.heads, dropout=dropout, noise=noise),
        lambda q, b: attention_gpu.run(
            attention.Inputs(q, b, mask, noise), heads=s.heads, **options
        ),
        (draw(2, s.rows, s.length, 3 * s.width), vector(3, 3 * s.width)),
    )
    for stream in ("float32", "bfloat16"):
        yield Operation(
            f"residual in {stream} and LayerNorm, {rows} x {s.width}{rate}",
            lambda *a: residual_norm(*a, dropout=dropout, noise=noise),
            lambda *a: residual_gpu.run(Residual(*a, noise), **options),
            (draw(0, *h.shape, dtype=stream), h, *(vector(n, s.width) for n in (4, 5, 6))),
        )
    yield Operation(
        f"LayerNorm of embeddings, {rows} x {s.width}{rate}",
        lambda *a: norm(*a, dropout=dropout, noise=noise, dtype="bfloat16"),
        lambda *a: norm_gpu.run(Normed(*a, noise), dtype=jnp.dtype("bfloat16"), **options),
        (draw(0, *h.shape, dtype=jnp.float32), vector(7, s.width), vector(8, s.width)),
    )
    if dropout:
        return
    yield Operation(
        f"bias and GELU, {rows} x {s.ffn}",
        bias_gelu,
        lambda *a: gelu_gpu.run(gelu.Inputs(*a), interpret=interpret),
        (draw(9, s.rows, s.length, s.ffn), vector(10, s.ffn)),
    )
    head = HeadOptions(vocab_size=s.vocab, tile=min(2048, s.vocab))
    targets_BxK = jax.random.randint(jax.random.key(2), (s.rows, s.slots), 0, s.vocab)
    of_slots = noise_ops.for_rows(jax.random.key(3), jnp.arange(s.rows))
    padded = -(-s.vocab // 128) * 128
    yield Operation(
        f"vocabulary head, {s.rows * s.slots} slots x {s.embedding}",
        lambda *a: tiles.run(Inputs(*a, targets_BxK, of_slots), head).loss,
        lambda *a: vocabulary_gpu.run(Inputs(*a, targets_BxK, of_slots), head, interpret).loss,
        (
            draw(11, s.rows, s.slots, s.embedding),
            vector(12, padded, s.embedding, scale=2 * s.embedding**-0.5),
            vector(13, padded, scale=0.1),
        ),
    )


def compare(operation: Operation) -> tuple[str, dict[str, float], dict[str, float]]:
    """(name, microseconds by version, largest relative error by version)."""
    key = jax.random.key(4)
    cotangents = jax.tree.map(
        lambda s: jax.random.normal(key, s.shape).astype(s.dtype),
        jax.eval_shape(operation.plain, *operation.arrays),
    )
    exact = _with_gradients(operation.plain)(
        *jax.tree.map(lambda a: a.astype(jnp.float32), (cotangents, *operation.arrays))
    )
    times, errors = {}, {}
    for name, function in (("XLA", operation.plain), ("ours", operation.kernel)):
        call = functools.partial(_with_gradients(function), cotangents, *operation.arrays)
        errors[name] = max(map(_error, call(), exact))
        times[name] = device_time(call)
    return operation.name, times, errors


def _with_gradients(function: Callable[..., Any]) -> Callable[..., tuple[jax.Array, ...]]:
    def both(cotangents: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        out, back = jax.vjp(function, *arrays)
        cotangents = jax.tree.map(lambda c, x: c.astype(x.dtype), cotangents, out)
        return *jax.tree.leaves(out), *back(cotangents)

    return jax.jit(both)


def _error(found: jax.Array, exact: jax.Array) -> float:
    x, y = (np.asarray(a, np.float64) for a in (found, exact))
    return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))


def device_time(call: Callable[[], Any]) -> float:
    """Microseconds that a call, which has run before, keeps the GPU busy."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                out = call()
            jax.block_until_ready(out)
        (file,) = glob.glob(str(Path(folder) / "**" / "*.xplane.pb"), recursive=True)
        profile = jax.profiler.ProfileData.from_file(file)
    lines = [line for plane in profile.planes if "GPU" in plane.name for line in plane.lines]
    kernels = [e for line in lines if line.name.startswith("Stream") for e in line.events]
    return sum(e.duration_ns for e in kernels) / CALLS / 1000


def main() -> None:
    """Prints a row an operation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="operations whose name has this")
    args = parser.parse_args()
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        if machine.card() is not machine.HOPPER:
            parser.error(f"needs an H100 or H200, but this is {jax.devices()[0].device_kind}")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| operation with its gradients | XLA, µs | ours, µs | XLA's error | ours |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        for dropout in (0.0, 0.1):
            for operation in operations(shape, dropout):
                if args.only in operation.name:
                    name, times, errors = compare(operation)
                    cells = [f"{t:,.0f}" for t in times.values()]
                    cells += [f"{e:.4f}" for e in errors.values()]
                    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
