"""Barriers against what XLA's compilers otherwise compute twice."""

from typing import Any

import jax

from electra_jax.ops.kernel import Implementation, Operation

_APART = Operation(
    "apart",
    Implementation(name="barrier", runs_on="cpu", run=jax.lax.optimization_barrier),
    Implementation(name="plain", run=lambda x: x),
)
_WRITTEN = Operation(
    "written",
    # A GPU's compiler writes them and what is computed from them in one kernel, which the barrier would make two.
    Implementation(name="plain", runs_on="gpu", run=lambda x: x),
    Implementation(name="barrier", run=jax.lax.optimization_barrier),
)


def apart(x: jax.Array) -> jax.Array:
    """x; where the program is made for a CPU, as an array of its own that is computed once.

    XLA's compiler for CPUs otherwise computes cheap arrays anew wherever they are used, in the order of that use, or
    keeps what it can share between forward and backward pass, however large.
    """
    return _APART(x)


def written(arrays: Any) -> Any:
    """The tree of arrays; on CPUs and TPUs, what follows reads them from memory.

    XLA otherwise computes new moments again from the old ones, and must copy those first, because the new ones take
    their place: half of an optimizer's time on a CPU.
    """
    return _WRITTEN(arrays)
