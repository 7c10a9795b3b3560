"""The machine that the program being traced is made for: its platform, its card, and the sizes of that card."""

import re
from typing import NamedTuple

import jax


class Card(NamedTuple):
    """Sizes of a GPU that kernels are cut by."""

    multiprocessors: int


HOPPER = Card(multiprocessors=132)  # H100, H200 and GH200


def platform() -> str:
    """tpu, gpu or cpu: that of the mesh in `jax.sharding.use_abstract_mesh`, outside a mesh JAX's default backend."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return "gpu" if name == "cuda" else name


def devices() -> int:
    """How many devices share the rows of a batch: those of the mesh, outside a mesh 1."""
    return jax.sharding.get_abstract_mesh().size or 1


def card() -> Card | None:
    """The card of the mesh in `jax.sharding.use_abstract_mesh`; None outside a mesh and for cards without kernels."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or platform() != "gpu":
        return None
    return HOPPER if re.search(r"\bG?H[12]00\b", device.device_kind) else None
