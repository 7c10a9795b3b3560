"""Trees of arrays as tables: every path with its shape, dtype and a checksum of its bits."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

Table = dict[str, dict[str, Any]]  # path -> {"shape": [..], "dtype": "..", "checksum": int}


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as `a/b/c`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Leaf by path, such as "params/discriminator/layer_0/query/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from values by path: the inverse of `flatten` for trees of dicts."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def describe(tree: Any) -> Table:
    """The table of a tree of arrays or ShapeDtypeStructs; without checksums."""
    return {
        path: {"shape": list(x.shape), "dtype": np.dtype(x.dtype).name}
        for path, x in flatten(tree).items()
    }


def checksums(tree: Any) -> dict[str, int]:
    """Checksum by path of a tree of `jax.Array`s, computed where they lie."""
    # One at a time: many small programs with collectives in flight starve each other on fake CPU devices.
    return {
        path: int(jax.device_get(jax.jit(checksum, out_shardings=_replicated(x))(x)))
        for path, x in flatten(tree).items()
    }


def owned(tree: Any) -> Any:
    """A copy of a tree of `jax.Array`s that a computation made, on the same shardings.

    Buffers that came from the host (restored arrays) cannot always be donated; outputs of a
    computation can. The given arrays are deleted one by one, so no second tree is held in memory.
    """
    leaves, structure = jax.tree.flatten(tree)
    for i, x in enumerate(leaves):
        leaves[i] = jax.jit(jnp.copy, out_shardings=x.sharding)(x)
        x.delete()
    return jax.tree.unflatten(structure, leaves)


def mismatches(expected: Table, found: Table, where: str) -> list[str]:
    """One sentence for every path, shape or dtype in which `found` (in `where`) differs."""
    lines = [f"{path}: not in {where}" for path in sorted(set(expected) - set(found))]
    lines += [f"{path}: only in {where}" for path in sorted(set(found) - set(expected))]
    for path in sorted(set(expected) & set(found)):
        ours, theirs = (f"{t[path]['dtype']}{t[path]['shape']}" for t in (expected, found))
        if ours != theirs:
            lines.append(f"{path}: expected {ours}, {where} has {theirs}")
    return lines


def checksum(x: jax.Array) -> jax.Array:
    """uint32: sum of word i times (2i + 1), modulo 2**32; no changed bit or swapped pair of words goes unseen.

    A sum of integers does not depend on its order, so it is the same on every mesh and in
    `checksum_numpy`. A flipped bit changes it because an odd number times a power of two below
    2**32 is never 0 modulo 2**32.
    """
    words = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[words.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(words, unsigned).astype(jnp.uint32)
    weight = jnp.ones(words.shape, jnp.uint32)
    stride = 2
    for axis in reversed(range(words.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        weight += index * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(words * weight, dtype=jnp.uint32)


def checksum_numpy(x: np.ndarray) -> int:
    """The same number for an array in host memory."""
    flat = np.ascontiguousarray(x).reshape(-1)
    words = flat.view({1: np.uint8, 2: np.uint16}.get(x.dtype.itemsize, np.uint32))
    weight = np.arange(words.size, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return int(np.sum(words.astype(np.uint32) * weight, dtype=np.uint32))


def _replicated(x: jax.Array) -> Any:
    """Where the checksum of `x` goes: on every device of its mesh, so that every process can read it."""
    if isinstance(x.sharding, NamedSharding):
        return NamedSharding(x.sharding.mesh, PartitionSpec())
    return None
